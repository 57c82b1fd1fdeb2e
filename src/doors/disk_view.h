#pragma once

/// A disk for one more user, who keeps the order of what he submits himself; and how long requests
/// take there. One request of each kind in `sampled_one_of` is timed, so that the others pay a
/// count.
///
/// Thread rule: the disk's loop. Views outlive nothing: the disk and the times outlive them.

#include "block/block_device.h"
#include "block/decorate/interception.h"
#include "sys/clock.h"

#include <array>
#include <cstdint>
#include <string>

namespace godwit::doors {

/// How many of the timed requests took less than 2^i microseconds, each counted once.
struct RequestTimes {
    static constexpr std::size_t buckets = 26; ///< The last: half a minute and more.
    struct Kind {
        std::array<std::uint64_t, buckets> below{};
        std::uint64_t timed = 0;
        std::uint64_t microseconds = 0; ///< All together.
        std::uint64_t seen = 0;         ///< Submitted, timed or not.
    };
    Kind reads;
    Kind changes; ///< Writes, discards, zeroes.
    Kind flushes;

    [[nodiscard]] Kind& of(block::BlockOperation operation) noexcept {
        return operation == block::BlockOperation::read    ? reads
               : operation == block::BlockOperation::flush ? flushes
                                                           : changes;
    }
};

class DiskView final : public block::BlockDevice {
  public:
    static constexpr std::uint64_t sampled_one_of = 8;

    DiskView(block::BlockDevice& disk, const sys::Clock& clock, RequestTimes& times)
        : disk_(disk), clock_(clock), times_(times) {}
    [[nodiscard]] const block::BlockGeometry& geometry() const noexcept override {
        return disk_.geometry();
    }
    void submit(block::BlockRequest& request) override;
    void kick() override { disk_.kick(); }
    [[nodiscard]] std::uint32_t in_flight() const noexcept override { return disk_.in_flight(); }
    [[nodiscard]] Result<block::BlockGeometry> refresh() override { return disk_.refresh(); }
    [[nodiscard]] std::string description() const override { return disk_.description(); }

  private:
    static void done(block::BlockRequest& request, Status status) noexcept;

    block::BlockDevice& disk_;
    const sys::Clock& clock_;
    RequestTimes& times_;
    block::InterceptionPool timed_;
};

} // namespace godwit::doors
