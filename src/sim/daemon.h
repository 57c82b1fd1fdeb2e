#pragma once

/// A simulated godwitd for one machine, with an operator: asks for handovers, decides by the owner
/// record what becomes of one that gives no report, recovers what is frozen. It follows
/// control/exchange_run.cpp, recover_run.cpp and supervisor.cpp, and like them keeps nothing that
/// it cannot find again. A task of one Executor.

#include "sim/link.h"
#include "sim/vmm.h"
#include "sim/world.h"

namespace godwit::sim {

struct DaemonOptions {
    VmmFaults vmm_faults;
    LinkFaults link_faults;
    std::uint64_t cancel_odds = 0;
    std::uint32_t* handovers_left = nullptr; ///< What the operator still wants; outlives daemons.
};

/// Lives until it is killed.
void run_daemon(World& world, Machine& machine, const bool& alive, const DaemonOptions& options);

} // namespace godwit::sim
