#pragma once

/// A disk image opened for others: the engine under it, a thread that runs it, and views of it,
/// one for each door. The image is locked as it is for a machine.
///
/// Thread rule: open(), view() and the destructor on the thread that wires the process.

#include "base/result.h"
#include "block/block_device.h"
#include "block/move/moving_device.h"
#include "sys/alarm.h"
#include "sys/io_thread.h"

#include <chrono>
#include <memory>
#include <string>
#include <vector>

namespace godwit::doors {

struct DiskOptions {
    std::string path;
    bool read_only = false;
    /// O_DIRECT, where the file system has it.
    bool direct = true;
    /// A device profile (docs/formats/device-profile.md) the disk is to be as slow as; empty: none.
    std::string profile;
    /// How long a predecessor that is gone or about to go may keep the image's lock: the kernel
    /// holds it until the last write of a killed process has ended.
    std::chrono::milliseconds lock_wait{10'000};
};

class ExportedDisk {
  public:
    [[nodiscard]] static Result<std::unique_ptr<ExportedDisk>> open(const DiskOptions& options,
                                                                    const sys::Clock& clock);
    ExportedDisk(const ExportedDisk&) = delete;
    ExportedDisk& operator=(const ExportedDisk&) = delete;
    /// Every view is gone.
    ~ExportedDisk();

    [[nodiscard]] sys::EventLoop& loop() noexcept { return thread_->loop(); }
    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    /// As it was opened.
    [[nodiscard]] const block::BlockGeometry& geometry() const noexcept { return geometry_; }
    /// The same disk for one more user, who keeps the order of what he submits himself.
    [[nodiscard]] std::unique_ptr<block::BlockDevice> view();
    /// Where a part of the image holds data, and where a hole that reads as zeros.
    struct Extent {
        std::uint64_t bytes = 0;
        bool hole = false;
    };
    /// The extents from `offset` on, at most `count`, together at most `bytes` long and at least
    /// one. All is data while the disk moves or keeps to a profile, and where the file system
    /// cannot tell. On the loop's thread.
    [[nodiscard]] std::vector<Extent>
    extents(std::uint64_t offset, std::uint64_t bytes, std::size_t count);
    /// On the loop's thread only: where a move of the disk begins.
    [[nodiscard]] block::MovingDevice& disk() noexcept { return *disk_; }

  private:
    ExportedDisk(std::string path, std::unique_ptr<sys::IoThread> thread, const sys::Clock& clock)
        : path_(std::move(path)), thread_(std::move(thread)), alarms_(thread_->loop(), clock) {}

    std::string path_;
    std::unique_ptr<sys::IoThread> thread_;
    sys::LoopAlarmClock alarms_;
    block::BlockGeometry geometry_;
    std::unique_ptr<block::MovingDevice> disk_; ///< Lives on the loop.
};

} // namespace godwit::doors
