#include "sim/scenario.h"

namespace godwit::sim {
namespace {

// T6: what fails must replay exactly.
TEST(Scenario, same_seed_gives_the_same_trace) {
    const ScenarioResult once = run_scenario(42);
    const ScenarioResult again = run_scenario(42);
    EXPECT_GT(once.steps, 50U);
    EXPECT_EQ(once.trace, again.trace);
    EXPECT_NE(once.trace, run_scenario(43).trace);
}

TEST(Scenario, seeds_keep_the_invariants_and_meet_faults) {
    std::uint32_t crashes = 0;
    std::uint32_t handovers = 0;
    for (std::uint64_t seed = 1; seed <= 40; ++seed) {
        const ScenarioResult result = run_scenario(seed);
        EXPECT_EQ(result.violation, "") << "seed " << seed;
        crashes += result.crashes;
        handovers += result.handovers;
    }
    EXPECT_GT(crashes, 10U);
    EXPECT_GT(handovers, 40U);
}

} // namespace
} // namespace godwit::sim
