#include "block/plan/move_plan.h"
#include "sys/clock.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <set>

namespace godwit::block {
namespace {

constexpr double mb = 1e6;
constexpr std::uint64_t disk_bytes = std::uint64_t{10} << 30U;

DeviceSpeed flash() {
    return {.read_bytes_per_second = 500 * mb,
            .write_bytes_per_second = 400 * mb,
            .read_operation_seconds = 11e-6,
            .write_operation_seconds = 13e-6,
            .read_latency_seconds = 100e-6,
            .write_latency_seconds = 50e-6,
            .wear_weight = 1};
}
DeviceSpeed turning() {
    return {.read_bytes_per_second = 150 * mb,
            .write_bytes_per_second = 140 * mb,
            .read_operation_seconds = 8e-3,
            .write_operation_seconds = 3e-3,
            .read_latency_seconds = 8.1e-3,
            .write_latency_seconds = 3.1e-3};
}
Workload guest(double requests) {
    return {.reads = requests / 2,
            .read_bytes = requests / 2 * 8192,
            .writes = requests / 2,
            .written_bytes = requests / 2 * 8192,
            .working_set_bytes = 1e9};
}

/// `count` disks that go from device 0 to device 1.
PlanSituation one_way(const DeviceSpeed& from, const DeviceSpeed& to, std::size_t count) {
    PlanSituation now{.devices = {from, to}, .disks = {}};
    for (std::size_t i = 0; i < count; ++i) {
        now.disks.push_back({.bytes = disk_bytes,
                             .places = {.source = 0, .destination = 1},
                             .workload = guest(20)});
    }
    return now;
}
/// Two of flash and turning disks change places.
PlanSituation both_ways(std::size_t each) {
    PlanSituation now = one_way(turning(), flash(), each);
    for (std::size_t i = 0; i < each; ++i) {
        now.disks.push_back({.bytes = disk_bytes,
                             .places = {.source = 1, .destination = 0},
                             .workload = guest(20)});
    }
    return now;
}

MovePlan planned(const PlanSituation& now) {
    Result<MovePlan> plan = plan_moves(now);
    EXPECT_TRUE(plan.has_value()) << plan.error().to_string();
    return std::move(*plan);
}
double least_single(const MovePlan& plan) {
    double least = std::numeric_limits<double>::max();
    for (const MovePlan::Single& single : plan.singles) {
        least = std::min(least, single.forecast.cost);
    }
    return least;
}

TEST(Forecast, one_disk_alone_costs_what_its_estimate_says) {
    const PlanSituation now = one_way(turning(), flash(), 1);
    const MoveSituation alone{.disk_bytes = disk_bytes,
                              .source = now.devices[0],
                              .destination = now.devices[1],
                              .workload = now.disks[0].workload};
    for (const Scheme scheme : all_schemes) {
        const Forecast all = foresee(now, {.disks = {0}, .at_once = {1, 1}}, {scheme});
        const SchemeEstimate one = estimate(alone, scheme);
        EXPECT_NEAR(all.cost, one.cost, 0.05 * one.cost) << name_of(scheme);
        EXPECT_NEAR(all.seconds, one.bill.seconds, 0.05 * one.bill.seconds) << name_of(scheme);
    }
}

TEST(Forecast, moves_that_share_their_slowest_device_take_twice_as_long_each) {
    const PlanSituation now = one_way(flash(), flash(), 2);
    const std::vector<Scheme> schemes(2, Scheme::slr);
    const Forecast turns = foresee(now, {.disks = {0, 1}, .at_once = {1, 1}}, schemes);
    const Forecast together = foresee(now, {.disks = {0, 1}, .at_once = {2, 2}}, schemes);
    EXPECT_NEAR(together.seconds, turns.seconds, 0.05 * turns.seconds);
    EXPECT_NEAR(together.disks[0].bill.seconds,
                2 * turns.disks[0].bill.seconds,
                0.1 * together.disks[0].bill.seconds);
    EXPECT_GT(together.cost, 1.8 * turns.cost);
    EXPECT_DOUBLE_EQ(turns.disks[1].begins_seconds, turns.disks[0].bill.seconds);
    EXPECT_DOUBLE_EQ(together.disks[1].begins_seconds, 0);
}

TEST(Forecast, streams_that_interleave_on_a_turning_disk_pay_for_seeks) {
    const PlanSituation now = one_way(turning(), flash(), 2);
    const std::vector<Scheme> schemes(2, Scheme::mirror);
    const Forecast turns = foresee(now, {.disks = {0, 1}, .at_once = {1, 1}}, schemes);
    const Forecast together = foresee(now, {.disks = {0, 1}, .at_once = {2, 2}}, schemes);
    // 256 KiB take 1.7 ms, the seek before them 8 ms.
    EXPECT_GT(together.seconds, 3 * turns.seconds);
}

TEST(Forecast, a_limit_is_of_each_move) {
    PlanSituation now = one_way(flash(), flash(), 2);
    now.limit_bytes_per_second = 50'000'000;
    const Forecast together =
        foresee(now, {.disks = {0, 1}, .at_once = {2, 2}}, std::vector<Scheme>(2, Scheme::mirror));
    EXPECT_NEAR(together.seconds, static_cast<double>(disk_bytes) / 50e6, 1);
}

TEST(Forecast, guests_that_wait_for_their_turn_slow_the_others_down) {
    PlanSituation now = one_way(turning(), flash(), 2);
    const MoveOrder order{.disks = {0, 1}, .at_once = {1, 1}};
    const std::vector<Scheme> schemes(2, Scheme::lr);
    const Forecast idle = [&] {
        PlanSituation without = now;
        without.disks[1].workload = {};
        return foresee(without, order, schemes);
    }();
    now.disks[1].workload = guest(60);
    const Forecast busy = foresee(now, order, schemes);
    EXPECT_GT(busy.disks[0].bill.seconds, 1.3 * idle.disks[0].bill.seconds);
    EXPECT_GT(busy.disks[0].parts.io, idle.disks[0].parts.io);
}

TEST(MovePlan, names_every_disk_once_and_keeps_to_what_is_allowed) {
    PlanSituation now = both_ways(6);
    now.allows_lr = false;
    const MovePlan plan = planned(now);
    EXPECT_EQ(std::set(plan.order.disks.begin(), plan.order.disks.end()).size(), 12U);
    EXPECT_EQ(plan.order.disks.size(), 12U);
    EXPECT_EQ(plan.schemes.size(), 12U);
    EXPECT_EQ(plan.singles.size(), all_schemes.size() - 1);
    EXPECT_FALSE(std::ranges::find(plan.schemes, Scheme::lr) != plan.schemes.end());
    for (const std::uint32_t at_once : plan.order.at_once) {
        EXPECT_GE(at_once, 1U);
    }
}

TEST(MovePlan, both_directions_are_mixed_and_cost_less_than_any_single_scheme) {
    for (const double gamma : {0.0, 0.25, 0.5, 0.75}) {
        PlanSituation now = both_ways(4);
        now.gamma = gamma;
        const MovePlan plan = planned(now);
        EXPECT_LT(plan.forecast.cost, 0.97 * least_single(plan)) << gamma;
        EXPECT_GT(std::set(plan.schemes.begin(), plan.schemes.end()).size(), 1U) << gamma;
    }
}

TEST(MovePlan, one_direction_costs_at_most_the_best_single_scheme) {
    for (const double gamma : {0.0, 0.25, 0.5, 0.75, 1.0}) {
        for (const auto& [from, to] : {std::pair(turning(), flash()),
                                       std::pair(flash(), turning()),
                                       std::pair(flash(), flash()),
                                       std::pair(turning(), turning())}) {
            PlanSituation now = one_way(from, to, 8);
            now.gamma = gamma;
            const MovePlan plan = planned(now);
            EXPECT_LE(plan.forecast.cost, 1.03 * least_single(plan) + 1e-9) << gamma;
        }
    }
}

TEST(MovePlan, a_turning_disk_serves_one_move_and_a_fast_one_several) {
    // Four turning disks empty themselves into a flash disk that takes more than one gives.
    PlanSituation now{.devices = {turning(), turning(), turning(), turning(), flash()},
                      .disks = {}};
    for (std::size_t i = 0; i < 8; ++i) {
        now.disks.push_back({.bytes = disk_bytes,
                             .places = {.source = i % 4, .destination = 4},
                             .workload = guest(20)});
    }
    const MovePlan plan = planned(now);
    for (std::size_t i = 0; i < 4; ++i) {
        EXPECT_EQ(plan.order.at_once[i], 1U);
    }
    EXPECT_GE(plan.order.at_once[4], 2U);
    EXPECT_LE(plan.order.at_once[4], 3U); // 400 MB/s, and each source gives 150.
    now.at_once_max = 1;
    EXPECT_EQ(planned(now).order.at_once[4], 1U);
}

TEST(MovePlan, refuses_what_makes_no_sense) {
    PlanSituation now = one_way(flash(), flash(), 1);
    now.disks[0].places.destination = 2;
    EXPECT_FALSE(plan_moves(now).has_value());
    now = one_way(flash(), flash(), 1);
    now.disks[0].bytes = 0;
    EXPECT_FALSE(plan_moves(now).has_value());
    now = one_way(flash(), flash(), 1);
    now.devices[1].write_bytes_per_second = 0;
    EXPECT_FALSE(plan_moves(now).has_value());
    EXPECT_FALSE(plan_moves(one_way(flash(), flash(), plan_disks_max + 1)).has_value());
    EXPECT_TRUE(plan_moves({.devices = {flash()}, .disks = {}}).has_value());
}

TEST(MovePlan, takes_no_longer_for_many_disks) {
    PlanSituation now = both_ways(plan_disks_max / 2);
    for (std::size_t i = 0; i < 14; ++i) {
        now.devices.push_back(flash());
        now.disks[i].places.destination = i + 2;
    }
    const sys::SystemClock clock;
    const sys::Moment before = clock.now();
    const MovePlan plan = planned(now);
#ifndef __SANITIZE_THREAD__ // Some thirty times slower.
    EXPECT_LT(clock.now() - before, std::chrono::seconds(10));
#endif
    EXPECT_LE(plan.forecast.cost, least_single(plan)); // With so few tries for each disk.
}

TEST(MoveQueue, begins_what_has_room_in_order) {
    // Disks 0 and 1 share device 0; disk 2 lies elsewhere.
    MoveQueue queue({.disks = {0, 1, 2}, .at_once = {1, 2, 1}},
                    {{.source = 0, .destination = 1},
                     {.source = 0, .destination = 1},
                     {.source = 2, .destination = 1}});
    EXPECT_EQ(queue.next(), 0U);
    EXPECT_EQ(queue.next(), 2U);
    EXPECT_EQ(queue.next(), std::nullopt);
    queue.ended(2);
    EXPECT_EQ(queue.next(), std::nullopt);
    queue.ended(0);
    EXPECT_EQ(queue.next(), 1U);
    EXPECT_FALSE(queue.idle());
    queue.ended(1);
    EXPECT_TRUE(queue.idle());
}

TEST(MoveQueue, within_one_device_a_move_takes_one_place) {
    MoveQueue queue({.disks = {0, 1}, .at_once = {1}},
                    {{.source = 0, .destination = 0}, {.source = 0, .destination = 0}});
    EXPECT_EQ(queue.next(), 0U);
    EXPECT_EQ(queue.next(), std::nullopt);
    queue.drop_rest();
    EXPECT_FALSE(queue.idle());
    queue.ended(0);
    EXPECT_TRUE(queue.idle());
}

} // namespace
} // namespace godwit::block
