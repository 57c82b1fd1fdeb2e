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
    Door(const Door&) = delete;
    Door& operator=(const Door&) = delete;
    /// What is in flight is finished; the device is at rest.
    ~Door();

  private:
    Door() = default;
    std::unique_ptr<virtio::BlkDevice> device_;
    std::unique_ptr<Server> server_;
    std::jthread thread_;
};

} // namespace godwit::doors::vhost
