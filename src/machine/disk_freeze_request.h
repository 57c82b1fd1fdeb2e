#pragma once

/// What a machine is asked to do when one of its disks is frozen, and what came of it. Values; any
/// thread.

#include <cstdint>
#include <string>

namespace godwit::machine {

struct DiskFreezeRequest {
    std::string disk;  ///< "disk0"
    std::string delta; ///< Absolute path of a file that is made, or of a block device.
    /// Of the file; 0: enough for all of the disk, or nine tenths of the free space if that is
    /// less.
    std::uint64_t bytes = 0;
};

struct DiskFreezeReport {
    std::string disk;
    std::string base; ///< What is frozen: the image, or the delta before.
    std::string delta;
    std::string snapshot; ///< Names the frozen state.
    std::uint64_t delta_bytes = 0;
    std::uint64_t written_bytes = 0; ///< To make the delta (LS-1).
    std::int64_t duration_us = 0;
    std::int64_t pause_us = 0; ///< Requests of the guest waited.
};

} // namespace godwit::machine
