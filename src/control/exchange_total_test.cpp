#include "control/exchange_total.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace godwit::control {
namespace {

MachineResult
machine(const char* name, MachineOutcome outcome, std::int64_t blackout_us = -1, int total_us = 0) {
    return {.machine = name,
            .outcome = outcome,
            .phase = "",
            .build_ids = {},
            .blackout_us = blackout_us,
            .total_us = total_us,
            .reason = ""};
}

TEST(total_outcome, worst_counts) {
    using enum MachineOutcome;
    const MachineResult good = machine("a", done, 5);
    EXPECT_EQ(total_outcome({}), "done");
    EXPECT_EQ(total_outcome(std::vector{good, machine("b", current)}), "done");
    EXPECT_EQ(total_outcome(std::vector{good, machine("b", rolled_back)}), "partial");
    EXPECT_EQ(total_outcome(std::vector{good, machine("b", not_tried)}), "partial");
    EXPECT_EQ(total_outcome(std::vector{machine("b", refused), machine("c", current)}),
              "rolled_back");
    EXPECT_EQ(total_outcome(std::vector{good, machine("b", failed_after_commit)}),
              "failed_after_commit");
    EXPECT_EQ(total_outcome(std::vector{machine("a", lost), machine("b", failed_after_commit)}),
              "lost");
}

TEST(percentile, takes_the_nearest_rank) {
    std::vector<std::int64_t> values;
    for (std::int64_t i = 100; i > 0; --i) {
        values.push_back(i);
    }
    EXPECT_EQ(percentile(values, 0.5), 50);
    EXPECT_EQ(percentile(values, 0.99), 99);
    EXPECT_EQ(percentile(values, 1.0), 100);
    EXPECT_EQ(percentile({7}, 0.5), 7);
    EXPECT_EQ(percentile({}, 0.5), -1);
}

TEST(total_report, says_how_long_and_who_was_slowest) {
    using enum MachineOutcome;
    const std::vector<MachineResult> machines{machine("a", done, 1000, 50),
                                              machine("b", done, 3000, 80),
                                              machine("c", rolled_back, -1, 70),
                                              machine("d", not_tried)};
    const Json report = total_report({.mode = "hot-restart", .total_us = 300}, machines);
    EXPECT_EQ(report["outcome"], "partial");
    EXPECT_EQ(report["counts"]["done"], 2);
    EXPECT_EQ(report["counts"]["not_tried"], 1);
    EXPECT_EQ(report["blackout_us"]["p50"], 1000);
    EXPECT_EQ(report["blackout_us"]["max"], 3000);
    EXPECT_EQ(report["slowest"]["machine"], "b");
    EXPECT_EQ(report["machines"].size(), 4U);
    EXPECT_TRUE(report["machines"][2]["blackout_us"].is_null());
}

TEST(outcome_named, unknown_ones_promise_nothing) {
    EXPECT_EQ(outcome_named("done"), MachineOutcome::done);
    EXPECT_EQ(outcome_named("lost"), MachineOutcome::lost);
    EXPECT_EQ(outcome_named("waiting"), MachineOutcome::rolled_back);
    EXPECT_EQ(outcome_named(""), MachineOutcome::rolled_back);
}

} // namespace
} // namespace godwit::control
