#include "sys/end_signals.h"

#include <gtest/gtest.h>

#include <csignal>
#include <thread>
#include <vector>

namespace godwit::sys {
namespace {

// On a thread of its own: the signals stay blocked.
TEST(EndSignals, each_signal_is_an_event_and_ends_nothing) {
    std::vector<int> asked;
    std::jthread([&] {
        const auto loop = GODWIT_MUST(EventLoop::create()); // Descriptors.
        const auto watch =
            GODWIT_MUST(EndSignals::watch(*loop, [&](int signal) { asked.push_back(signal); }));
        for (const int signal : {SIGTERM, SIGINT, SIGTERM}) {
            ::pthread_kill(::pthread_self(), signal);
            EXPECT_TRUE(loop->run_once(std::chrono::milliseconds(2000)).has_value());
        }
    }).join();
    EXPECT_EQ(asked, (std::vector{SIGTERM, SIGINT, SIGTERM}));
}

} // namespace
} // namespace godwit::sys
