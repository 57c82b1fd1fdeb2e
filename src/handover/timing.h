#pragma once

/// When the destination fills its page tables (requirement HR-5). Values and pure functions; any
/// thread.

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace godwit::handover {

enum class Timing : std::uint8_t {
    late,  ///< Everything stands before the switch.
    early, ///< Switch first: what the guest touches is fetched on demand, the rest behind it. The
           ///< source keeps the machine's memory until the last of it is there.
};

inline constexpr std::array<Timing, 2> all_timings{Timing::late, Timing::early};

[[nodiscard]] constexpr std::string_view name_of(Timing timing) noexcept {
    return timing == Timing::late ? "late" : "early";
}

[[nodiscard]] constexpr std::optional<Timing> timing_named(std::string_view name) noexcept {
    for (const Timing timing : all_timings) {
        if (name_of(timing) == name) {
            return timing;
        }
    }
    return std::nullopt;
}

/// What the destination made of the page tables after the switch (Timing::early).
struct Fetched {
    std::uint64_t bytes = 0;         ///< Of RAM, mapped when the last of it was there.
    std::uint64_t demand_faults = 0; ///< Page faults the guest's work took until then.
};

} // namespace godwit::handover
