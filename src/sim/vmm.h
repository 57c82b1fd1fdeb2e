#pragma once

/// A simulated godwit-vmm: the real engine drives its end of a handover as the source; the
/// destination's end follows the table of exchange/destination.h and the roles of vmm/service.h.
/// Tasks of one Executor only.

#include "sim/link.h"
#include "sim/world.h"

namespace godwit::sim {

/// Odds ("one in n", 0 never) of what may go wrong inside a VMM.
struct VmmFaults {
    std::uint64_t step_fails_odds = 0; ///< Each fallible step of a carrier, device or load.
    sys::Nanoseconds step_time_max{std::chrono::milliseconds(20)};
};

/// Lets `process` live: as the owner of the guest, or as a successor at the end of `incoming`.
void start_vmm(World& world,
               Process& process,
               const VmmFaults& faults,
               std::shared_ptr<LinkEnd> incoming);

} // namespace godwit::sim
