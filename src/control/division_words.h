#pragma once

/// What an old and a new godwitd agree on beside the region they share: names of the messages with
/// descriptors, periods, limits (docs/formats/partition-region.md, "Beside the region"). Values.

#include <chrono>
#include <cstdint>
#include <string>

namespace godwit::control::division {

inline constexpr std::uint64_t protocol = 1;
/// Pool, table, region, lock of the run directory, the reader's bell, the writer's bell.
inline constexpr std::size_t welcome_descriptors = 6;
inline constexpr std::chrono::milliseconds beat_period{50};
inline constexpr std::chrono::milliseconds greeting_time_max{15'000};
/// How long both instances run side by side before the first machine moves (requirement MP-1).
inline constexpr std::chrono::milliseconds beside_min{1'050};
inline constexpr std::uint64_t beats_beside_min = 5;
/// Measured: a godwitd with 16 machines is gone within 20 ms of its last word.
inline constexpr std::chrono::milliseconds estate_notice{500};
/// Within it the heir refuses an estate that it does not accept.
inline constexpr std::chrono::milliseconds refusal_time_max{100};
inline constexpr std::uint64_t testament_bytes_max = 2ULL << 20U;

inline constexpr std::string_view cpu_partition_prefix = "godwit-";
/// What a partition of CPUs is called after its instance's number in the pool.
[[nodiscard]] inline std::string cpu_partition_name(std::uint32_t instance) {
    return std::string(cpu_partition_prefix) + std::to_string(instance);
}

} // namespace godwit::control::division
