#pragma once

/// A UNIX socket at which front ends find one disk, one after the other: while one is served, the
/// next waits in the kernel's queue. When a front end goes, what is in flight is finished and the
/// device waits for the next.
///
/// Thread rule: run() on a thread of its own, which is not the device's loop; stop() on any.

#include "base/result.h"
#include "sys/fd.h"
#include "sys/unix_socket.h"
#include "virtio/virtio_device.h"

#include <memory>
#include <string>

namespace godwit::doors::vhost {

class Server {
  public:
    /// Listens at `path`, which it takes over if it is there. The device outlives the server.
    [[nodiscard]] static Result<std::unique_ptr<Server>> create(const std::string& path,
                                                                virtio::VirtioDevice& device);
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;
    ~Server() = default;

    /// Serves front ends until stop(), or until nobody can be let in any more. The device is at
    /// rest afterwards.
    [[nodiscard]] Status run();
    void stop() const noexcept { stopping_.signal(); }

  private:
    Server(sys::Listener listener, sys::EventFd stopping, virtio::VirtioDevice& device)
        : listener_(std::move(listener)), stopping_(std::move(stopping)), device_(device) {}
    void serve(sys::Fd socket);
    [[nodiscard]] Status converse(sys::Fd socket);

    sys::Listener listener_;
    sys::EventFd stopping_;
    virtio::VirtioDevice& device_;
};

} // namespace godwit::doors::vhost
