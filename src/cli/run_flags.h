#pragma once

/// From the flags of `godwit run` to a machine document. Pure but for reading --spec. Values.

#include "base/result.h"
#include "machine/machine_spec.h"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace godwit::cli {

/// The flags as typed; what was not given is empty.
struct RunFlags {
    std::string name;
    std::string spec_file;
    std::string kernel;
    std::string initrd;
    std::optional<std::string> command_line;
    std::optional<std::uint32_t> cpus;
    std::string memory;
    std::string memory_file;
    bool huge_pages = false;
    std::vector<std::string> disks;
    std::vector<std::string> nets;
    std::optional<bool> serial;
    std::optional<bool> console;
};

/// "PATH[,ro][,serial=S][,queues=N][,direct=off]"; a comma inside the path is written ",,".
[[nodiscard]] Result<machine::DiskSpec> parse_disk(std::string_view text);
/// "tap=IF[,mac=M][,queues=N]"
[[nodiscard]] Result<machine::NetSpec> parse_net(std::string_view text);

/// Puts the flags over the document `base_json` (empty: none). Paths become absolute.
/// invalid_argument names the flag.
[[nodiscard]] Result<machine::MachineSpec> machine_spec_from(const RunFlags& flags,
                                                             std::string_view base_json);
/// As it stands in the present directory.
[[nodiscard]] std::string absolute_path(const std::string& path);

} // namespace godwit::cli
