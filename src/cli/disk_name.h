#pragma once

/// "web1:disk0", as it stands on the command line. Any thread.

#include "base/result.h"

#include <string>

namespace godwit::cli {

struct DiskName {
    std::string machine;
    std::string disk;
};

[[nodiscard]] Result<DiskName> parse_disk_name(const std::string& text);

} // namespace godwit::cli
