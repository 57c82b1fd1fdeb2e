#pragma once

/// For tests and simulations: a guest that reads, writes, zeroes, discards and flushes a disk at
/// random, several requests at once, overlapping ones too, and knows whether what it reads is
/// right. Memory of a finished write is spoilt at once, so that nobody may use it any longer. One
/// thread.

#include "block/block_device.h"
#include "block/testing/block_oracle.h"
#include "block/testing/simulated_time.h"

#include <memory>
#include <string>
#include <vector>

namespace godwit::block::testing {

struct GuestLoadOptions {
    std::uint32_t depth = 4;
    std::uint64_t requests = 300;
    std::uint64_t blocks_max = 16; ///< Of one request.
    std::uint64_t hot_blocks = 0;  ///< Half of the changes go to the first so many.
    std::uint64_t writes_per_hundred = 45;
    sys::Nanoseconds think{20'000}; ///< At most, between an answer and the next request.
};

class GuestLoad {
  public:
    GuestLoad(BlockDevice& disk,
              SimulatedTime& time,
              BlockOracle& oracle,
              GuestLoadOptions options);
    GuestLoad(const GuestLoad&) = delete;
    GuestLoad& operator=(const GuestLoad&) = delete;
    ~GuestLoad() = default;

    /// Everything was asked and answered.
    [[nodiscard]] bool finished() const noexcept { return left_ == 0 && running_ == 0; }
    /// No more requests than those on their way.
    void stop() noexcept { left_ = 0; }
    [[nodiscard]] std::uint64_t errors() const noexcept { return errors_; }
    /// That succeeded.
    [[nodiscard]] std::uint64_t flushes() const noexcept { return flushes_; }
    [[nodiscard]] const std::string& violation() const noexcept { return violation_; }

  private:
    struct Slot {
        GuestLoad* load = nullptr;
        BlockRequest request;
        std::vector<std::byte> memory;
        std::vector<iovec> segments;
        BlockOracle::Number number = 0;
        std::uint64_t since = 0;
        bool busy = false;
        std::unique_ptr<sys::Alarm> alarm;
    };

    void think(Slot& slot);
    void ask(Slot& slot);
    void choose(Slot& slot);
    static void done(BlockRequest& request, Status status) noexcept;
    void answered(Slot& slot, const Status& status);

    BlockDevice& disk_;
    SimulatedTime& time_;
    BlockOracle& oracle_;
    GuestLoadOptions options_;
    std::uint64_t block_bytes_;
    std::uint64_t blocks_;
    std::vector<Slot> slots_;
    std::uint64_t left_;
    std::uint32_t running_ = 0;
    std::uint64_t errors_ = 0;
    std::uint64_t flushes_ = 0;
    std::string violation_;
};

} // namespace godwit::block::testing
