#include "vmm/pool_memory.h"

#include "exchange/partition/machine_memory.h"
#include "machine/resources.h"

#include <fcntl.h>

namespace godwit::vmm {

namespace {

/// A copy that later programs do not inherit; the number that was is closed.
Result<sys::Fd> take_inherited(int& number) {
    const sys::Fd inherited(std::exchange(number, -1));
    return inherited.duplicate();
}

} // namespace

Result<machine::Resources> open_new_resources(const machine::MachineSpec& spec, Options& options) {
    if (spec.memory.kind != memory::RamKind::pool) {
        return machine::open_resources(spec);
    }
    if (options.pool_fd < 0 || options.pool_table_fd < 0) {
        return Error(ErrorCode::invalid_argument,
                     "RAM of kind \"pool\" needs the host's memory pool (--pool-fd, "
                     "--pool-table-fd): only godwitd starts such a machine");
    }
    machine::Resources resources = GODWIT_TRY(machine::open_resources_except_ram(spec));
    resources.push_back({.name = std::string(machine::ram_resource_name),
                         .fd = GODWIT_TRY(take_inherited(options.pool_fd))});
    resources.push_back({.name = std::string(machine::pool_table_resource_name),
                         .fd = GODWIT_TRY(take_inherited(options.pool_table_fd))});
    return resources;
}

Result<std::unique_ptr<exchange::ForeignMemory>> foreign_memory(Options& options,
                                                                const sys::Clock& clock) {
    if (options.region_fd < 0) {
        return std::unique_ptr<exchange::ForeignMemory>();
    }
    if (options.pool_fd < 0 || options.pool_table_fd < 0) {
        return Error(ErrorCode::invalid_argument, "--region-fd goes with the pool's descriptors");
    }
    return GODWIT_TRY(exchange::partition::MachineMemory::create(
        {.pool_memory = GODWIT_TRY(take_inherited(options.pool_fd)),
         .pool_table = GODWIT_TRY(take_inherited(options.pool_table_fd)),
         .region = GODWIT_TRY(take_inherited(options.region_fd)),
         .slot = options.region_slot,
         .epoch = options.region_epoch},
        clock));
}

Status place_restored(machine::MachineSpec& spec, const Options& options) {
    if (options.placement_path.empty()) {
        return ok();
    }
    const std::string text =
        GODWIT_TRY(sys::read_file(options.placement_path, machine::spec_json_bytes_max));
    machine::MachineSpec placed =
        GODWIT_TRY(machine::parse_machine_spec(text).with_context(options.placement_path));
    if (placed.memory.kind != memory::RamKind::pool || placed.memory.bytes != spec.memory.bytes) {
        return Error(ErrorCode::invalid_argument,
                     "'" + options.placement_path + "' gives the machine no place in the pool");
    }
    spec.memory = std::move(placed.memory);
    return ok();
}

} // namespace godwit::vmm
