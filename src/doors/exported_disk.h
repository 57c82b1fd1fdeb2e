#pragma once

/// A disk image opened for others: the engine under it, a thread that runs it, and views of it,
/// one for each door. The image is locked as it is for a machine, and moves like one of a machine,
/// too: where it lies then is noted beside the image it was named by (place_note.h).
///
/// Thread rule: the thread that wires the process, but for what says "loop".

#include "base/result.h"
#include "block/block_device.h"
#include "block/move/disk_move.h"
#include "block/move/moving_device.h"
#include "doors/disk_view.h"
#include "doors/place_note.h"
#include "sys/alarm.h"
#include "sys/io_thread.h"

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace godwit::doors {

/// What a disk is called in requests and reports: there is one.
inline constexpr std::string_view exported_disk_name = "disk0";

struct DiskOptions {
    std::string path;
    /// Where it is noted that the image has moved; empty: beside it.
    std::string place;
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
    /// An image that a predecessor has opened at `place`, which lies there: with its lock, which
    /// belongs to the open file. Nothing is read or written before a view is used.
    [[nodiscard]] static Result<std::unique_ptr<ExportedDisk>> adopt(const DiskOptions& options,
                                                                     block::ImagePlace place,
                                                                     sys::Fd image,
                                                                     const sys::Clock& clock);
    ExportedDisk(const ExportedDisk&) = delete;
    ExportedDisk& operator=(const ExportedDisk&) = delete;
    /// Every view is gone.
    ~ExportedDisk();

    [[nodiscard]] sys::EventLoop& loop() noexcept { return thread_->loop(); }
    /// Where the image lies.
    [[nodiscard]] const std::string& path() const noexcept { return place_.path; }
    // What a successor needs, while nothing moves.
    [[nodiscard]] const block::ImagePlace& place() const noexcept { return place_; }
    [[nodiscard]] Result<sys::Fd> copy_image() const { return image_.duplicate(); }
    /// Absolute.
    [[nodiscard]] const std::string& origin() const noexcept { return note_.origin(); }
    /// The report of the last move as JSON; empty if there was none.
    [[nodiscard]] const std::string& last_move() const noexcept { return last_move_; }
    void set_last_move(std::string report) { last_move_ = std::move(report); }
    /// As it was opened.
    [[nodiscard]] const block::BlockGeometry& geometry() const noexcept { return geometry_; }
    /// The same disk for one more user. Any thread.
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
    /// On the loop.
    [[nodiscard]] block::MovingDevice& disk() noexcept { return *disk_; }

    /// Begins a move and gives its id. `ended` is called on the loop when settle_move() is due.
    [[nodiscard]] Result<std::uint64_t> start_move(const block::DiskMoveRequest& request,
                                                   std::function<void()> ended);
    /// Back to where it was, as soon as it can; not_found without a move.
    [[nodiscard]] Status cancel_move();
    enum class Moving : std::uint8_t { no, yes, stranded };
    /// Also while a move that is over waits to be settled.
    [[nodiscard]] Moving moving() const noexcept;
    /// What an ended move has changed; true if there was one.
    bool settle_move();
    /// The disk, how far its move is, and what became of the last, as one JSON object (as in
    /// docs/formats/vmm-control.md, "disks").
    [[nodiscard]] std::string to_json();
    /// What was asked for and how long it took, as one JSON object (docs/formats/blk-control.md).
    [[nodiscard]] std::string metrics_json();

  private:
    ExportedDisk(DiskOptions options,
                 PlaceNote note,
                 std::unique_ptr<sys::IoThread> thread,
                 const sys::Clock& clock)
        : options_(std::move(options)), note_(std::move(note)), thread_(std::move(thread)),
          alarms_(thread_->loop(), clock), clock_(clock) {}
    [[nodiscard]] static Result<std::unique_ptr<ExportedDisk>> create(const DiskOptions& options,
                                                                      PlaceNote note,
                                                                      block::ImagePlace place,
                                                                      sys::Fd image,
                                                                      const sys::Clock& clock);

    const DiskOptions options_;
    const PlaceNote note_;
    block::ImagePlace place_;
    sys::Fd image_; ///< Keeps the lock, whatever the engine does.
    std::string last_move_;
    std::unique_ptr<sys::IoThread> thread_;
    sys::LoopAlarmClock alarms_;
    const sys::Clock& clock_;
    block::BlockGeometry geometry_;
    // These live on the loop.
    RequestTimes times_;
    std::unique_ptr<block::MovingDevice> disk_;
    std::unique_ptr<block::DiskMove> move_; ///< The one that has not been settled.
};

} // namespace godwit::doors
