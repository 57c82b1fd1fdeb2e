#include "sim/executor.h"

namespace godwit::sim {
namespace {

using std::chrono::seconds;

std::string order_of(std::uint64_t seed) {
    std::string order;
    Executor executor(seed);
    for (const char letter : {'a', 'b', 'c', 'd'}) {
        executor.spawn(std::string(1, letter), [&order, &executor, letter] {
            for (int i = 0; i < 8; ++i) {
                order += letter;
                executor.yield();
            }
        });
    }
    while (executor.step()) {
    }
    return order;
}

TEST(Executor, same_seed_gives_the_same_order) {
    EXPECT_EQ(order_of(7), order_of(7));
    EXPECT_NE(order_of(7), order_of(8));
}

TEST(Executor, time_jumps_to_the_next_deadline) {
    Executor executor(1);
    executor.spawn("sleeper", [&] { executor.let_pass(seconds(1000)); });
    const sys::Moment start = executor.now();
    while (executor.step()) {
    }
    EXPECT_GE(executor.now() - start, seconds(1000));
    EXPECT_LT(executor.now() - start, seconds(1001));
}

TEST(Executor, wait_ends_with_its_condition) {
    Executor executor(1);
    bool said = false;
    bool heard = false;
    executor.spawn("listener", [&] { heard = executor.wait([&] { return said; }, seconds(5)); });
    executor.spawn("speaker", [&] {
        executor.let_pass(seconds(1));
        said = true;
    });
    while (executor.step()) {
    }
    EXPECT_TRUE(heard);
}

TEST(Executor, killed_task_runs_to_its_end_without_waiting) {
    Executor executor(1);
    bool ended = false;
    const TaskId task = executor.spawn("victim", [&] {
        executor.let_pass(seconds(1));
        executor.let_pass(seconds(1000));
        ended = true;
    });
    const sys::Moment start = executor.now();
    ASSERT_TRUE(executor.step());
    executor.kill(task);
    while (executor.step()) {
    }
    EXPECT_TRUE(ended);
    EXPECT_LT(executor.now() - start, seconds(1));
}

TEST(Executor, stalled_task_misses_its_deadline) {
    Executor executor(1);
    const sys::Moment start = executor.now();
    sys::Moment woke;
    const TaskId task = executor.spawn("slow", [&] {
        executor.let_pass(seconds(1));
        woke = executor.now();
    });
    executor.stall(task, seconds(9));
    while (executor.step()) {
    }
    EXPECT_GE(woke - start, seconds(9));
}

} // namespace
} // namespace godwit::sim
