#pragma once

/// A set of CPUs as the kernel's lists write it ("0-3,8"). A plain value.

#include "base/result.h"

#include <cstdint>
#include <set>
#include <string>
#include <string_view>

namespace godwit::exchange::partition {

using CpuSet = std::set<std::uint32_t>;
inline constexpr std::uint32_t cpu_numbers_max = 1024;

/// Parses a list of CPUs below 1024; invalid_argument names what is wrong. An empty text is an
/// empty set.
[[nodiscard]] Result<CpuSet> parse_cpu_set(std::string_view text);
/// "0-3,8".
[[nodiscard]] std::string to_string(const CpuSet& cpus);

} // namespace godwit::exchange::partition
