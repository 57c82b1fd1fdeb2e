#pragma once

/// The vhost-user door of an exported disk: the virtio disk, its socket, and the thread that waits
/// for front ends.
///
/// Thread rule: the thread that wires the process.

#include "base/result.h"
#include "doors/exported_disk.h"
#include "doors/vhost/server.h"
#include "virtio/blk/blk_device.h"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

namespace godwit::doors::vhost {

class Door {
  public:
    struct Args {
        std::string socket;
        virtio::BlkOptions options;
        ExportedDisk& disk;
        /// Nobody can be let in any more; on the door's thread.
        std::function<void(const Error& reason)> failed;
    };
    [[nodiscard]] static Result<std::unique_ptr<Door>> open(Args args);
    /// A predecessor's socket, at which nobody is served before begin().
    [[nodiscard]] static Result<std::unique_ptr<Door>> adopt(Args args, sys::Fd listening);
    Door(const Door&) = delete;
    Door& operator=(const Door&) = delete;
    /// What is in flight is finished; the device is at rest.
    ~Door();

    [[nodiscard]] const sys::Fd& listening_socket() noexcept { return server_->listener().fd(); }

    // For an exchange of this process:
    /// Listens to nobody any more, brings the device to rest and copies what a successor needs; on
    /// an error, too, it takes begin() to go on.
    [[nodiscard]] Result<std::optional<SavedConversation>> freeze(sys::Moment deadline);
    /// A predecessor's conversation, before begin().
    [[nodiscard]] Status restore(SavedConversation conversation);
    /// Serves, from rest.
    void begin();
    /// After freeze(): all is somebody else's now and hears nothing of the end.
    void let_go() noexcept { server_->listener().abandon_path(); }

  private:
    explicit Door(std::function<void(const Error& reason)> failed) : failed_(std::move(failed)) {}
    [[nodiscard]] Status create_device(const Args& args);
    std::function<void(const Error& reason)> failed_;
    std::unique_ptr<virtio::BlkDevice> device_;
    std::unique_ptr<Server> server_;
    std::jthread thread_;
};

} // namespace godwit::doors::vhost
