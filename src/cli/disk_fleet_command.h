#pragma once

/// disk move of many disks at once. One thread.

#include "cli/session.h"

#include <cstdint>
#include <string>
#include <vector>

namespace godwit::cli {

struct DiskFleetCommand {
    std::string machine; ///< Empty: all.
    std::vector<std::string> directories;
    std::uint64_t limit_bytes_per_second = 0;
    double gamma = 0.5;
    std::uint32_t concurrency = 0; ///< 0: what is best.
    bool unsafe = false;
    bool dry_run = false;
    bool keep_going = false;
};

[[nodiscard]] ExitCode move_disks(const Session& session, const DiskFleetCommand& command);

} // namespace godwit::cli
