#pragma once

/// Memory statistics a guest reports through its balloon (virtio 1.2, section 5.5.6.3). A value.

#include "base/result.h"
#include "virtio/virt_queue.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace godwit::virtio {

inline constexpr std::size_t balloon_statistics_count = 10;
/// Names by tag, as they stand in JSON. Sizes are bytes, the rest are counts.
inline constexpr std::array<std::string_view, balloon_statistics_count> balloon_statistic_names{
    "swap_in_bytes",
    "swap_out_bytes",
    "major_faults",
    "minor_faults",
    "free_memory_bytes",
    "total_memory_bytes",
    "available_memory_bytes",
    "disk_caches_bytes",
    "hugetlb_allocations",
    "hugetlb_failures"};

struct BalloonStatistics {
    /// How often the guest has reported; 0: never.
    std::uint64_t reports = 0;
    /// By tag; empty where the guest said nothing.
    std::array<std::optional<std::uint64_t>, balloon_statistics_count> values{};
};

/// Reads a report into `statistics`; unknown tags are skipped. An error is a broken rule.
[[nodiscard]] Status read_statistics(const Chain& chain, BalloonStatistics& statistics);

} // namespace godwit::virtio
