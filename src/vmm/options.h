#pragma once

/// How a VMM process is started. Values.

#include "handover/owner_record.h"

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
    /// Restore copies RAM into shared memory, so that the machine can be exchanged.
    bool restore_copies_ram = false;

    [[nodiscard]] std::string machine_directory() const {
        return run_directory + "/machines/" + machine;
    }
    [[nodiscard]] std::string control_path() const {
        return machine_directory() + "/vmm-" + handover::to_string(instance) + ".sock";
    }
};

} // namespace godwit::vmm
