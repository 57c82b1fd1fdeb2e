#pragma once

/// Starting the process of a VMM: as an ordinary one, or in a service partition. Control thread
/// only.

#include "control/service_partition.h"
#include "control/vmm_instance.h"

namespace godwit::control {

struct SpawnedVmm {
    sys::Process process;
    std::unique_ptr<ServicePartition> partition; ///< Null if it is in none, then
    std::string reason;                          ///< why.
};

/// `spawn` as for an ordinary process. A confined one cannot bind its control socket: it gets it
/// bound.
[[nodiscard]] Result<SpawnedVmm> spawn_vmm(sys::EventLoop& loop,
                                           const RunDirectory& run,
                                           const VmmLaunch& options,
                                           const std::string& id,
                                           sys::SpawnOptions spawn,
                                           ServicePartition::Watcher watcher);

} // namespace godwit::control
