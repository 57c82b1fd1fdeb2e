#pragma once

/// Decisions of a handover as pure functions of numbers (style C7): no clock, no socket.

#include "handover/carrier.h"

#include <chrono>
#include <cstdint>

namespace godwit::handover {

struct Limits {
    /// The longest pause the operator accepts for carrying what remains.
    std::chrono::nanoseconds pause_budget = std::chrono::milliseconds(300);
    /// Rounds of sync before it gives up.
    std::uint32_t rounds_max = 30;
    /// How long the destination may take to say who it is.
    std::chrono::milliseconds hello_timeout = std::chrono::seconds(10);
    /// How long the destination may take to be built.
    std::chrono::milliseconds prepare_timeout = std::chrono::seconds(30);
    /// From when the devices are told to come to rest until the destination must have said that the
    /// guest runs there: quiesce, pause, carry and claim together.
    std::chrono::milliseconds commit_timeout = std::chrono::seconds(5);
    /// How long the destination may take for its late checks.
    std::chrono::milliseconds settle_timeout = std::chrono::seconds(10);
};

enum class SyncDecision : std::uint8_t { go_on, pause_now, give_up };

/// After round `round` (1 = first): pause when what remains fits the budget at the rate measured;
/// go on while rounds are left; then give up.
[[nodiscard]] SyncDecision
decide(const Remaining& remaining, std::uint32_t round, const Limits& limits) noexcept;

} // namespace godwit::handover
