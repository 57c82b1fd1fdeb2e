#pragma once

/// How a VMM process is started. Values.

#include "handover/owner_record.h"

#include <cstdint>
#include <string>

namespace godwit::vmm {

struct Options {
    std::string machine;
    std::string run_directory;
    handover::InstanceId instance;
    /// Where one line is written when the process is ready or has failed; -1: nowhere.
    int ready_fd = -1;
    /// Exactly one of the three is given.
    std::string spec_path;
    std::string restore_directory;
    int incoming_fd = -1;
    /// The control socket, bound already, of a process that cannot do that: it is confined until it
    /// is let out. -1: it binds its own.
    int control_fd = -1;
    /// Restore copies RAM into shared memory, so that the machine can be exchanged.
    bool restore_copies_ram = false;
    /// The host's memory pool and its ownership table, for RAM of kind "pool"; -1: none.
    int pool_fd = -1;
    int pool_table_fd = -1;
    /// With a restore into the pool: the document whose runs say where RAM is to lie.
    std::string placement_path;
    /// With an exchange from another hypervisor instance: the region both share, and where in it
    /// the machine is offered.
    int region_fd = -1;
    std::uint32_t region_slot = 0;
    std::uint32_t region_epoch = 0;

    [[nodiscard]] std::string machine_directory() const {
        return run_directory + "/machines/" + machine;
    }
    [[nodiscard]] std::string document_path() const { return machine_directory() + "/spec.json"; }
    [[nodiscard]] std::string control_path() const {
        return machine_directory() + "/vmm-" + handover::to_string(instance) + ".sock";
    }
};

} // namespace godwit::vmm
