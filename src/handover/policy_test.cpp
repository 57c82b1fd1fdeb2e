#include "handover/policy.h"

namespace godwit::handover {
namespace {

const Limits limits{.pause_budget = std::chrono::milliseconds(100), .rounds_max = 3};

TEST(Policy, nothing_remaining_pauses_at_once) {
    EXPECT_EQ(decide({}, 1, limits), SyncDecision::pause_now);
}

TEST(Policy, rest_that_fits_the_budget_pauses) {
    EXPECT_EQ(decide({.bytes = 99, .bytes_per_second = 1000}, 1, limits), SyncDecision::pause_now);
}

TEST(Policy, rest_over_the_budget_goes_on_while_rounds_are_left) {
    EXPECT_EQ(decide({.bytes = 101, .bytes_per_second = 1000}, 2, limits), SyncDecision::go_on);
    EXPECT_EQ(decide({.bytes = 101, .bytes_per_second = 1000}, 3, limits), SyncDecision::give_up);
}

TEST(Policy, unknown_rate_never_pauses_with_bytes_left) {
    EXPECT_EQ(decide({.bytes = 1, .bytes_per_second = 0}, 1, limits), SyncDecision::go_on);
}

} // namespace
} // namespace godwit::handover
