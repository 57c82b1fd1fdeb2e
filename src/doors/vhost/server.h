#pragma once

/// A UNIX socket at which front ends find one disk, one after the other: while one is served, the
/// next waits in the kernel's queue. When a front end goes, what is in flight is finished and the
/// device waits for the next.
///
/// Thread rule: run() on a thread of its own, which is not the device's loop; stop() on any.

#include "base/result.h"
#include "doors/vhost/channel.h"
#include "doors/vhost/session.h"
#include "sys/fd.h"
#include "sys/unix_socket.h"
#include "virtio/virtio_device.h"

#include <memory>
#include <optional>
#include <string>

namespace godwit::doors::vhost {

struct SavedConversation {
    sys::Fd socket;
    SavedSession session;
};

class Server {
  public:
    /// Listens at `path`, which it takes over if it is there. The device outlives the server.
    [[nodiscard]] static Result<std::unique_ptr<Server>> create(const std::string& path,
                                                                virtio::VirtioDevice& device);
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;
    ~Server() = default;

    /// A predecessor's socket, at which nobody is let in before run().
    [[nodiscard]] static Result<std::unique_ptr<Server>> adopt(sys::Listener listener,
                                                               virtio::VirtioDevice& device);

    /// Serves front ends until stop(), or until nobody can be let in any more. A front end that is
    /// there stays, is served on, and is listened to by the next run(). The device is at rest when
    /// the server has gone.
    [[nodiscard]] Status run();
    void stop() const noexcept { stopping_.signal(); }

    // For an exchange of this process, between two run()s:
    /// Brings the device to rest and copies the conversation, if there is one. Busy while a message
    /// has come in part. After an error, too, resume() goes on.
    [[nodiscard]] Result<std::optional<SavedConversation>> save(sys::Moment deadline);
    /// Takes a conversation up; at rest until resume().
    [[nodiscard]] Status restore(SavedConversation saved);
    /// The rings of the front end that is there are served again; one for which that fails goes.
    void resume();
    [[nodiscard]] sys::Listener& listener() noexcept { return listener_; }

  private:
    Server(sys::Listener listener, sys::EventFd stopping, virtio::VirtioDevice& device)
        : listener_(std::move(listener)), stopping_(std::move(stopping)), device_(device) {}
    void serve();
    [[nodiscard]] Status converse();
    void dismiss(const Error& reason);

    sys::Listener listener_;
    sys::EventFd stopping_;
    virtio::VirtioDevice& device_;
    std::unique_ptr<Channel> channel_;
    std::unique_ptr<Session> session_; ///< On the channel; kept between two run()s.
};

} // namespace godwit::doors::vhost
