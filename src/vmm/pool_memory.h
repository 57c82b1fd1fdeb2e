#pragma once

/// RAM of kind "pool" in this process: the host's memory pool and its table come as descriptors
/// from godwitd, which has chosen the runs that stand in the machine's document. Before the machine
/// is built; control loop's thread.

#include "exchange/destination.h"
#include "machine/machine.h"
#include "sys/clock.h"
#include "vmm/options.h"

#include <memory>

namespace godwit::vmm {

/// Everything a new machine needs: RAM made or, of kind "pool", that which was handed over (taken
/// out of `options`). invalid_argument if none was.
[[nodiscard]] Result<machine::Resources> open_new_resources(const machine::MachineSpec& spec,
                                                            Options& options);

/// The place a restored machine gets in the pool: kind and runs of the document
/// `options.placement_path`. Without one the description stays as it is.
[[nodiscard]] Status place_restored(machine::MachineSpec& spec, const Options& options);

/// The memory of a machine that comes from another hypervisor instance, taken out of `options`;
/// null if it stays with its instance.
[[nodiscard]] Result<std::unique_ptr<exchange::ForeignMemory>>
foreign_memory(Options& options, const sys::Clock& clock);

} // namespace godwit::vmm
