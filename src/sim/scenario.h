#pragma once

/// One simulation: a host with several machines, each handed from VMM to VMM by the real engine,
/// with faults by seed. The same seed gives the same run, step for step.

#include <cstdint>
#include <string>
#include <vector>

namespace godwit::sim {

struct ScenarioResult {
    std::string violation; ///< Empty if all invariants held.
    std::vector<std::string> trace;
    std::uint64_t steps = 0;
    std::uint32_t handovers = 0;
    std::uint32_t crashes = 0;
    std::uint32_t lost = 0;      ///< Machines whose last copy a crash took.
    std::uint32_t left_over = 0; ///< Processes that keep a stale copy at the end.
};

[[nodiscard]] ScenarioResult run_scenario(std::uint64_t seed);

} // namespace godwit::sim
