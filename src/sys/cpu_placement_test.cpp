#include "base/result.h"
#include "sys/cpu_placement.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace godwit::sys {
namespace {

std::vector<std::uint32_t> allowed() {
    cpu_set_t set;
    EXPECT_EQ(::sched_getaffinity(0, sizeof(set), &set), 0);
    std::vector<std::uint32_t> cpus;
    for (std::uint32_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (CPU_ISSET(cpu, &set)) {
            cpus.push_back(cpu);
        }
    }
    return cpus;
}

void allow_only(std::uint32_t cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    EXPECT_EQ(::sched_setaffinity(0, sizeof(set), &set), 0);
}

/// Each test on a thread of its own: what it changes goes with it.
template <typename Body>
void on_a_thread(Body body) {
    std::jthread(std::move(body)).join();
}

TEST(CpuPlacement, another_thread_sees_where_one_is) {
    for (const std::uint32_t cpu : allowed()) {
        std::atomic<int> stage{0};
        LastCpu mark;
        EXPECT_FALSE(mark.number().has_value());
        std::jthread thread([&] {
            allow_only(cpu);
            mark = LastCpu::of_this_thread();
            stage = 1;
            stage.notify_all();
            stage.wait(1);
        });
        stage.wait(0);
        EXPECT_EQ(mark.number(), cpu);
        stage = 2;
        stage.notify_all();
    }
}

TEST(CpuPlacement, keeps_off_while_it_lives) {
    const std::vector<std::uint32_t> all = allowed();
    if (all.size() < 2) {
        GTEST_SKIP() << "only one CPU here";
    }
    on_a_thread([&] {
        for (const std::uint32_t cpu : all) {
            StayOffCpus off{std::span(&cpu, 1)};
            EXPECT_EQ(allowed().size(), all.size() - 1);
            EXPECT_NE(::sched_getcpu(), static_cast<int>(cpu));
            StayOffCpus moved = std::move(off);
            EXPECT_EQ(allowed().size(), all.size() - 1);
        }
        EXPECT_EQ(allowed(), all);
        StayOffCpus off{std::span(all).first(1)};
        std::jthread([&] { off = {}; }).join();
        EXPECT_EQ(allowed(), all);
    });
}

TEST(CpuPlacement, runs_on_if_there_is_no_other_cpu) {
    const std::vector<std::uint32_t> all = allowed();
    on_a_thread([&] {
        const StayOffCpus off(all);
        EXPECT_EQ(allowed(), all);
    });
    on_a_thread([&] {
        allow_only(all.back());
        const StayOffCpus off{std::span(all).last(1)};
        EXPECT_EQ(allowed(), std::vector{all.back()});
    });
}

TEST(CpuPlacement, what_another_has_set_meanwhile_stands) {
    const std::vector<std::uint32_t> all = allowed();
    if (all.size() < 2) {
        GTEST_SKIP() << "only one CPU here";
    }
    on_a_thread([&] {
        {
            const StayOffCpus off{std::span(all).first(1)};
            allow_only(all.front());
        }
        EXPECT_EQ(allowed(), std::vector{all.front()});
    });
}

} // namespace
} // namespace godwit::sys
