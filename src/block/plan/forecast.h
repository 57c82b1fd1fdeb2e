#pragma once

/// How a plan of many moves would go: a fluid forecast of who is under way when, how fast, and what
/// each move costs. Pure functions of numbers; any thread.
///
/// Between two events (a move begins or ends) nothing changes: the guests take their part of each
/// device's time, the copiers share what is left evenly (in bytes, but none gets more than its
/// other device lets it), streams that interleave pay a seek for every chunk, and a guest's request
/// waits for the chunks and requests of all. Each move gets on by what its scheme's estimate says
/// under these conditions; its bill is put together from those parts.

#include "block/move/estimate.h"
#include "block/plan/move_queue.h"

#include <string>
#include <vector>

namespace godwit::block {

struct PlanDisk {
    std::uint64_t bytes = 0;
    MovePlaces places;
    Workload workload; ///< Of its guest, which uses the source before and the destination after.
};

struct PlanSituation {
    std::vector<DeviceSpeed> devices;
    std::vector<PlanDisk> disks;
    double gamma = 0.5;
    std::uint64_t limit_bytes_per_second = 0; ///< Of each move; 0: none.
    std::uint64_t threshold_bytes = std::uint64_t{1} << 20U;
    std::uint32_t chunk_bytes = 256 * 1024;
    std::uint32_t depth = 8;
    std::uint32_t at_once_max = 0; ///< Moves at one device; 0: what is best.
    /// lr is left out unless the destination's loss may be the disk's.
    bool allows_lr = true;
};

[[nodiscard]] std::vector<MovePlaces> places_of(const PlanSituation& situation);

struct MoveForecast {
    double begins_seconds = 0; ///< Since the first one began.
    MoveBill bill;
    double pause_seconds = 0;
    CostParts parts;
    double cost = 0;
};

struct Forecast {
    std::vector<MoveForecast> disks; ///< By disk.
    double cost = 0;                 ///< Of all together.
    double seconds = 0;              ///< Until the last one is over.
};

/// `schemes` by disk.
[[nodiscard]] Forecast
foresee(const PlanSituation& situation, const MoveOrder& order, const std::vector<Scheme>& schemes);

} // namespace godwit::block
