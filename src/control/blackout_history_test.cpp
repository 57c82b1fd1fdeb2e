#include "control/blackout_history.h"

#include <gtest/gtest.h>

namespace godwit::control {
namespace {

TEST(blackout_history, nothing_known_is_said_so) {
    BlackoutHistory history;
    history.add("web1", "hot-restart", -1); // It was paused.
    EXPECT_FALSE(history.expected("web1", "hot-restart").has_value());
    history.add("web1", "suspend", 5);
    EXPECT_FALSE(history.expected("web1", "hot-restart").has_value());
}

TEST(blackout_history, machine_goes_before_host) {
    BlackoutHistory history;
    for (const std::int64_t us : {900, 1000, 5000}) {
        history.add("web1", "hot-restart", us);
    }
    history.add("web2", "hot-restart", 100);
    const auto own = history.expected("web1", "hot-restart");
    ASSERT_TRUE(own.has_value());
    EXPECT_EQ(own->median_us, 1000);
    EXPECT_EQ(own->exchanges, 3U);
    EXPECT_TRUE(own->of_this_machine);
    const auto host = history.expected("web3", "hot-restart");
    ASSERT_TRUE(host.has_value());
    EXPECT_EQ(host->median_us, 950);
    EXPECT_EQ(host->exchanges, 4U);
    EXPECT_FALSE(host->of_this_machine);
}

TEST(blackout_history, old_values_are_forgotten) {
    BlackoutHistory history;
    history.add("web1", "hot-restart", 1'000'000);
    for (std::size_t i = 0; i < BlackoutHistory::kept_of_machine_max; ++i) {
        history.add("web1", "hot-restart", 7);
    }
    EXPECT_EQ(history.expected("web1", "hot-restart")->median_us, 7);
    EXPECT_EQ(history.expected("web1", "hot-restart")->exchanges,
              BlackoutHistory::kept_of_machine_max);
}

} // namespace
} // namespace godwit::control
