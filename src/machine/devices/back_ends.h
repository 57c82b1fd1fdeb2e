#pragma once

/// What the devices of a machine stand on: a thread with an event loop for each disk and each
/// network, open images with their rings, taps. Made by build(), before anything is known of the
/// guest, because it is slow; given to the devices by boot() or load(). Control thread.

#include "block/move/moving_device.h"
#include "machine/devices/disk_layers.h"
#include "machine/devices/disk_merge.h"
#include "machine/machine.h"
#include "sys/alarm.h"
#include "sys/io_thread.h"
#include "sys/tap.h"

#include <atomic>
#include <memory>
#include <optional>
#include <vector>

namespace godwit::block {
class DiskMove;
} // namespace godwit::block

namespace godwit::machine {

struct DiskBackEnd {
    std::unique_ptr<sys::IoThread> thread;
    std::unique_ptr<sys::LoopAlarmClock> clock;
    std::unique_ptr<DiskLayers> layers;    ///< Lives on the thread's loop, as all below.
    block::MovingDevice* moving = nullptr; ///< The base; goes with the device.
    std::uint32_t queue_depth = 0;
    /// A freeze that is not settled.
    struct Freeze {
        DeltaPlace delta;
        DiskSpec spec; ///< With the delta.
        sys::Moment begun;
        std::optional<Result<sys::Nanoseconds>> outcome; ///< Once it has ended.
        std::atomic<bool> ended{false};                  ///< Any thread.
    };
    std::shared_ptr<Freeze> freeze;
    std::unique_ptr<DiskMerge> merge;      ///< The one that has not been settled.
    std::unique_ptr<block::DiskMove> move; ///< The one that has not been settled.
};

struct NetBackEnd {
    std::unique_ptr<sys::IoThread> thread;
    std::optional<sys::Tap> tap; ///< Empty once taken.
};

class BackEnds {
  public:
    /// Takes copies of the descriptors in `resources`, which have been checked.
    [[nodiscard]] static Result<std::unique_ptr<BackEnds>> create(const MachineSpec& spec,
                                                                  const Resources& resources,
                                                                  const MachineEvents& events,
                                                                  const sys::Clock& clock);
    BackEnds(const BackEnds&) = delete;
    BackEnds& operator=(const BackEnds&) = delete;
    ~BackEnds();

    [[nodiscard]] sys::EventLoop& disk_loop(std::size_t disk) {
        return disks_[disk].thread->loop();
    }
    [[nodiscard]] std::unique_ptr<block::BlockDevice> take_disk(std::size_t disk) {
        return disks_[disk].layers->take_device();
    }
    /// Deltas that are not open yet are, from the disks' loops.
    void open_layers();
    /// The deltas' journals say all that was written; devices are at rest. timeout naming the disk
    /// that has not come so far.
    [[nodiscard]] Status commit_layers(sys::Moment deadline);
    [[nodiscard]] DiskBackEnd& disk(std::size_t disk) { return disks_[disk]; }
    [[nodiscard]] std::size_t disk_count() const noexcept { return disks_.size(); }
    /// Moves and merges of disks end as if the process died. Before the devices go.
    void abandon_disks();
    [[nodiscard]] sys::EventLoop& net_loop(std::size_t net) { return nets_[net].thread->loop(); }
    /// Conflict if it has been taken.
    [[nodiscard]] Result<sys::Tap> take_tap(std::size_t net);
    /// Brings every loop's thread to rest, so that this thread can do their work (EventLoop::Hold).
    [[nodiscard]] std::vector<sys::EventLoop::Hold> hold_loops();
    /// For console, entropy, balloon and timers.
    [[nodiscard]] sys::EventLoop& common_loop() { return common_->loop(); }

  private:
    BackEnds(const MachineEvents& events, const sys::Clock& clock);
    [[nodiscard]] Status
    add_disk(const DiskSpec& disk, const sys::Fd& image, std::vector<sys::Fd> deltas);
    [[nodiscard]] Status add_net(const NetSpec& net, std::vector<sys::Fd> queues);

    const MachineEvents& events_;
    const sys::Clock& clock_;
    std::unique_ptr<sys::IoThread> common_;
    std::vector<DiskBackEnd> disks_;
    std::vector<NetBackEnd> nets_;
};

} // namespace godwit::machine
