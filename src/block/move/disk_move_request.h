#pragma once

/// What is asked for when a disk is to lie elsewhere. Values; any thread.

#include "base/result.h"

#include <cstdint>
#include <string>
#include <string_view>

namespace godwit::block {

struct DiskMoveRequest {
    std::string disk;        ///< "disk0"
    std::string destination; ///< Absolute path; made, as large as the disk, if nothing is there.
    /// "dbt", "mirror", "lr", "slr", "aio", "tiered", or "auto": what costs least here.
    std::string scheme = "auto";
    /// Of lr: writes go to the destination alone. If this process dies on the way, neither side is
    /// complete. Otherwise the source gets them too.
    bool unsafe = false;
    std::uint64_t limit_bytes_per_second = 0; ///< Of copying; 0: as fast as it goes.
    double gamma = 0.5;     ///< For auto: 0 thinks of the guest alone, 1 of the devices' wear.
    bool must_make = false; ///< Nothing may be there yet.
    /// Of a named scheme: what both sides have is read there. "auto" finds out by itself.
    bool reads_from_destination = false;
    /// With "auto": both devices are measured and the guest is watched, then it ends. Never read
    /// from JSON: it is a request of another name, which older programs refuse.
    bool estimate_only = false;
};

/// From the members of one JSON object, as control sockets take it; what is left out stays empty.
[[nodiscard]] Result<DiskMoveRequest> parse_disk_move_request(std::string_view json);
/// invalid_argument if there is no such scheme, or it cannot have what else is asked for.
[[nodiscard]] Status validate(const DiskMoveRequest& request);

} // namespace godwit::block
