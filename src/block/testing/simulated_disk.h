#pragma once

/// For tests and simulations: a disk in memory on simulated time. Requests overtake each other, a
/// write changes the disk at any moment of its way, block by block; its data is taken from the
/// caller's memory that late. What was not flushed may be lost when the power is cut. A flush that
/// fails may forget blocks, as page caches do: they read as before, and no later flush brings them
/// to the medium.
///
/// Owner thread only.

#include "block/block_device.h"
#include "block/testing/simulated_time.h"

#include <cstddef>
#include <memory>
#include <optional>
#include <set>
#include <vector>

namespace godwit::block::testing {

/// The medium; it outlives its device, as a disk outlives the machine.
struct Medium {
    explicit Medium(std::uint64_t bytes) : current(bytes), durable(bytes) {}
    std::vector<std::byte> current;   ///< What reads give.
    std::vector<std::byte> durable;   ///< What survives a power cut for sure.
    std::set<std::uint64_t> unsynced; ///< Blocks that may differ.
    std::uint64_t written_bytes = 0;  ///< Writes and zeroing that succeeded.
    std::uint64_t read_bytes = 0;
};

struct SimulatedDiskOptions {
    std::string name = "simulated disk";
    sys::Nanoseconds latency_min{1000};
    sys::Nanoseconds latency_max{100'000};
    std::uint32_t block_bytes = 512;
    std::uint64_t fail_one_in =
        0; ///< Requests that fail at random, having changed anything or not.
    std::uint64_t fail_flush_one_in = 0; ///< Flushes, besides those.
    std::uint64_t slow_one_in = 0;       ///< Requests that take fifty times as long.
};

class SimulatedDisk final : public BlockDevice {
  public:
    SimulatedDisk(Medium& medium, SimulatedTime& time, SimulatedDiskOptions options);
    SimulatedDisk(const SimulatedDisk&) = delete;
    SimulatedDisk& operator=(const SimulatedDisk&) = delete;
    /// What is in flight is lost, as when a process is killed.
    ~SimulatedDisk() override = default;

    /// The machine's power goes: nothing of it completes any more, each unsynced block keeps its
    /// new or its old contents, each block on its way is written or not.
    void cut_power();
    void set_fail_one_in(std::uint64_t odds) {
        options_.fail_one_in = odds;
        options_.fail_flush_one_in = odds;
    }
    /// The next flush fails and forgets all it was about.
    void lose_next_flush() noexcept { loses_next_flush_ = true; }

    [[nodiscard]] const BlockGeometry& geometry() const noexcept override { return geometry_; }
    void submit(BlockRequest& request) override;
    void kick() override {}
    [[nodiscard]] std::uint32_t in_flight() const noexcept override {
        return static_cast<std::uint32_t>(on_their_way_.size());
    }
    [[nodiscard]] Result<BlockGeometry> refresh() override { return geometry_; }
    [[nodiscard]] std::string description() const override { return options_.name; }

  private:
    struct Journey {
        BlockRequest* request = nullptr;
        sys::Moment due;
        bool applied = false;
        bool fails = false;
        bool forgets_all = false;        ///< Of a flush that fails.
        std::set<std::uint64_t> flushes; ///< Of a flush: what it makes durable.
    };

    void ring();
    void finish(Journey journey);
    void apply(const BlockRequest& request, std::uint64_t bytes);
    void mark_unsynced(const BlockRequest& request, std::uint64_t bytes);
    void forget(const Journey& flush);
    void make_durable(const std::set<std::uint64_t>& blocks);
    void set_alarm();

    Medium& medium_;
    SimulatedTime& time_;
    SimulatedDiskOptions options_;
    BlockGeometry geometry_;
    std::vector<Journey> on_their_way_;
    bool loses_next_flush_ = false;
    std::unique_ptr<sys::Alarm> alarm_;
};

} // namespace godwit::block::testing
