#include "sys/event_loop.h"
#include "sys/thread.h"

#include <sys/epoll.h>

namespace godwit::sys {
namespace {

TEST(EventLoop, post_from_another_thread_runs_in_order) {
    auto loop = GODWIT_MUST(EventLoop::create());
    std::vector<int> seen;
    const auto poster = start_thread("poster", [&] {
        for (int i = 0; i < 100; ++i) {
            loop->post([&seen, i] { seen.push_back(i); });
        }
        loop->post([&] { loop->stop(); });
    });
    ASSERT_TRUE(loop->run().has_value());
    ASSERT_EQ(seen.size(), 100U);
    EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
}

TEST(EventLoop, watch_signalled_eventfd_calls_back) {
    auto loop = GODWIT_MUST(EventLoop::create());
    const EventFd event = GODWIT_MUST(EventFd::create());
    int calls = 0;
    auto handle = GODWIT_MUST(loop->watch(event.fd(), EPOLLIN, [&](std::uint32_t) {
        event.drain();
        ++calls;
        loop->stop();
    }));
    event.signal();
    ASSERT_TRUE(loop->run().has_value());
    EXPECT_EQ(calls, 1);
}

TEST(EventLoop, callback_removes_itself_is_not_called_again) {
    auto loop = GODWIT_MUST(EventLoop::create());
    const EventFd event = GODWIT_MUST(EventFd::create());
    int calls = 0;
    EventLoop::Handle handle;
    handle = GODWIT_MUST(loop->watch(event.fd(), EPOLLIN, [&](std::uint32_t) {
        ++calls;
        handle.reset();
        loop->stop();
    }));
    event.signal();
    ASSERT_TRUE(loop->run().has_value());
    ASSERT_TRUE(loop->run_once(std::chrono::milliseconds(0)).has_value());
    EXPECT_EQ(calls, 1);
}

TEST(EventLoop, schedule_periodic_timer_fires_again) {
    auto loop = GODWIT_MUST(EventLoop::create());
    int calls = 0;
    auto handle =
        GODWIT_MUST(loop->schedule(std::chrono::milliseconds(1), std::chrono::milliseconds(1), [&] {
            if (++calls == 3) {
                loop->stop();
            }
        }));
    ASSERT_TRUE(loop->run().has_value());
    EXPECT_EQ(calls, 3);
}

} // namespace
} // namespace godwit::sys
