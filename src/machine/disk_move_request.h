#pragma once

/// What a machine is asked to do when one of its disks is to lie elsewhere. Values; any thread.

#include <cstdint>
#include <string>

namespace godwit::machine {

struct DiskMoveRequest {
    std::string disk;        ///< "disk0"
    std::string destination; ///< Absolute path; made, as large as the disk, if nothing is there.
    /// "dbt", "mirror", "lr", "slr", "aio", "tiered", or "auto": what costs least here.
    std::string scheme = "auto";
    /// Of lr: writes go to the destination alone. If this process dies on the way, neither side is
    /// complete. Otherwise the source gets them too.
    bool unsafe = false;
    std::uint64_t limit_bytes_per_second = 0; ///< Of copying; 0: as fast as it goes.
    double gamma = 0.5; ///< For auto: 0 thinks of the guest alone, 1 of the devices' wear.
};

} // namespace godwit::machine
