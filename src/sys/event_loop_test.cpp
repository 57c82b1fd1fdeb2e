#include "sys/event_loop.h"
#include "sys/io_thread.h"
#include "sys/thread.h"

#include <sys/epoll.h>

#include <future>

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

TEST(EventLoop, hook_runs_once_for_what_was_ready_together) {
    auto loop = GODWIT_MUST(EventLoop::create());
    int tasks = 0;
    std::vector<int> tasks_at_hook;
    const auto handle = loop->before_wait([&](bool) {
        tasks_at_hook.push_back(tasks);
        return std::chrono::milliseconds(-1);
    });
    for (int i = 0; i < 3; ++i) {
        loop->post([&] { ++tasks; });
    }
    loop->post([&] { loop->stop(); });
    ASSERT_TRUE(loop->run().has_value());
    ASSERT_TRUE(loop->run_once(std::chrono::milliseconds(0)).has_value());
    EXPECT_EQ(tasks_at_hook, (std::vector<int>{0, 3}));
}

TEST(EventLoop, hook_limits_the_wait_and_may_remove_itself) {
    auto loop = GODWIT_MUST(EventLoop::create());
    std::vector<bool> timed_out;
    EventLoop::Handle handle;
    handle = loop->before_wait([&](bool late) {
        timed_out.push_back(late);
        if (late) {
            handle.reset();
        }
        return std::chrono::milliseconds(1);
    });
    int others = 0;
    const auto other = loop->before_wait([&](bool) {
        ++others;
        return std::chrono::milliseconds(-1);
    });
    ASSERT_TRUE(loop->run_once(std::chrono::milliseconds(-1)).has_value());
    for (int i = 0; i < 2; ++i) {
        ASSERT_TRUE(loop->run_once(std::chrono::milliseconds(0)).has_value());
    }
    EXPECT_EQ(timed_out, (std::vector<bool>{false, true}));
    EXPECT_EQ(others, 3);
}

TEST(EventLoop, holder_does_the_loops_work_while_its_thread_rests) {
    auto thread = GODWIT_MUST(IoThread::create("held"));
    EventLoop& loop = thread->loop();
    const auto here = std::this_thread::get_id();
    std::thread::id ran_on;
    std::promise<std::thread::id> posted_on;
    {
        const EventLoop::Hold hold = loop.hold();
        loop.run_and_wait([&] { ran_on = std::this_thread::get_id(); });
        EXPECT_EQ(ran_on, here);
        loop.post([&] { posted_on.set_value(std::this_thread::get_id()); });
    }
    EXPECT_NE(posted_on.get_future().get(), here) << "what was posted is served afterwards";
    loop.run_and_wait([&] { ran_on = std::this_thread::get_id(); });
    EXPECT_NE(ran_on, here);
}

} // namespace
} // namespace godwit::sys
