#include "block/decorate/throttle_device.h"
#include "block/move/estimate.h"
#include "block/move/hot_filter.h"
#include "block/move/speed_probe.h"
#include "block/testing/simulated_disk.h"

namespace godwit::block {
namespace {

constexpr double mb = 1e6;

DeviceSpeed fast(double wear = 1) {
    return {.read_bytes_per_second = 500 * mb,
            .write_bytes_per_second = 400 * mb,
            .read_operation_seconds = 11e-6,
            .write_operation_seconds = 13e-6,
            .read_latency_seconds = 100e-6,
            .write_latency_seconds = 50e-6,
            .wear_weight = wear};
}
DeviceSpeed slow() {
    return {.read_bytes_per_second = 150 * mb,
            .write_bytes_per_second = 140 * mb,
            .read_operation_seconds = 8e-3,
            .write_operation_seconds = 3e-3,
            .read_latency_seconds = 8.1e-3,
            .write_latency_seconds = 3.1e-3};
}

MoveSituation situation(DeviceSpeed source, DeviceSpeed destination, double gamma) {
    return {.disk_bytes = 10'000'000'000,
            .source = source,
            .destination = destination,
            .workload = {.reads = 20,
                         .read_bytes = 20 * 4096,
                         .writes = 40,
                         .written_bytes = 40 * 4096,
                         .working_set_bytes = 1e9},
            .gamma = gamma};
}

const SchemeEstimate& of(const Estimates& estimates, Scheme scheme) {
    return estimates[static_cast<std::size_t>(scheme)];
}

TEST(MigrationCost, both_forms_of_the_formula_agree) {
    for (const double gamma : {0.0, 0.25, 0.5, 0.75, 1.0}) {
        const CostParts parts{.time = 1.7, .wear = 1.2, .io = 0.4};
        const double long_form =
            gamma * parts.wear * parts.time + (1 - gamma) * parts.io * parts.time;
        EXPECT_DOUBLE_EQ(migration_cost(parts, gamma), long_form);
    }
}

TEST(MigrationCost, parts_follow_their_definitions) {
    const CostParts parts = parts_of({.seconds = 50,
                                      .source_written_bytes = 1e9,
                                      .destination_written_bytes = 12e9,
                                      .guest_latency_seconds = 4e-3,
                                      .best_guest_latency_seconds = 1e-3},
                                     10'000'000'000,
                                     slow(),
                                     fast(0.5));
    EXPECT_DOUBLE_EQ(parts.time, 50 / (10'000'000'000 / (150 * mb)));
    EXPECT_DOUBLE_EQ(parts.wear, 0.6);
    EXPECT_DOUBLE_EQ(parts.io, 0.75);
}

TEST(Estimate, redundancy_has_the_order_that_the_schemes_promise) {
    const Estimates estimates = estimate_all(situation(fast(), fast(), 0.5));
    EXPECT_EQ(of(estimates, Scheme::lr).redundant_bytes, 0);
    EXPECT_LE(of(estimates, Scheme::slr).redundant_bytes,
              of(estimates, Scheme::dbt).redundant_bytes);
    EXPECT_DOUBLE_EQ(of(estimates, Scheme::mirror).redundant_bytes,
                     of(estimates, Scheme::aio).redundant_bytes);
}

TEST(Estimate, slow_to_fast_favours_lr) {
    const MoveSituation now = situation(slow(), fast(), 0.25);
    const SchemeChoice choice = choose(estimate_all(now), now);
    EXPECT_EQ(choice.scheme, Scheme::lr);
    EXPECT_EQ(choice.why.find("lr costs "), 0U);
}

TEST(Estimate, fast_to_slow_without_wear_leaves_the_guest_at_the_source) {
    const MoveSituation now = situation(fast(0), slow(), 0);
    const Scheme chosen = choose(estimate_all(now), now).scheme;
    EXPECT_NE(chosen, Scheme::lr);
    EXPECT_NE(chosen, Scheme::mirror);
}

TEST(Estimate, lr_wears_a_pair_of_flash_disks_least) {
    const Estimates estimates = estimate_all(situation(fast(1), fast(1), 1));
    for (const Scheme other : {Scheme::dbt, Scheme::mirror, Scheme::slr, Scheme::aio}) {
        EXPECT_LT(of(estimates, Scheme::lr).parts.wear, of(estimates, other).parts.wear);
    }
}

TEST(Estimate, lr_that_is_not_allowed_is_not_chosen) {
    MoveSituation now = situation(slow(), fast(), 0.25);
    now.allows_lr = false;
    EXPECT_NE(choose(estimate_all(now), now).scheme, Scheme::lr);
}

TEST(Estimate, guest_that_writes_faster_than_the_copier_has_no_end_of_passes) {
    MoveSituation now = situation(fast(), slow(), 0.5);
    now.workload.writes = 1000;
    now.workload.written_bytes = 200 * mb;
    now.workload.working_set_bytes = 5e9;
    const Estimates estimates = estimate_all(now);
    EXPECT_FALSE(of(estimates, Scheme::slr).ends);
    EXPECT_GT(of(estimates, Scheme::slr).redundant_bytes, 5e9);
    EXPECT_TRUE(of(estimates, Scheme::mirror).ends);
}

TEST(Estimate, hot_set_that_waits_saves_copies_and_lengthens_the_pause) {
    MoveSituation now = situation(fast(), fast(), 0.5);
    now.workload.writes = 5000;
    now.workload.written_bytes = 20 * mb;
    now.workload.hot_bytes = 50 * mb;
    now.workload.hot_share = 0.8;
    const Estimates estimates = estimate_all(now);
    EXPECT_LT(of(estimates, Scheme::tiered).redundant_bytes,
              of(estimates, Scheme::slr).redundant_bytes);
    EXPECT_GT(of(estimates, Scheme::tiered).pause_seconds,
              of(estimates, Scheme::slr).pause_seconds);
}

TEST(Estimate, only_changes_that_a_move_can_make_are_reconsidered) {
    Estimates estimates = estimate_all(situation(fast(), fast(), 0.5));
    for (SchemeEstimate& each : estimates) {
        each.cost = 1;
    }
    estimates[static_cast<std::size_t>(Scheme::lr)].cost = 0.1;
    EXPECT_EQ(reconsider(Scheme::slr, estimates), std::nullopt);
    estimates[static_cast<std::size_t>(Scheme::aio)].cost = 0.9;
    EXPECT_EQ(reconsider(Scheme::slr, estimates), std::nullopt);
    estimates[static_cast<std::size_t>(Scheme::aio)].cost = 0.5;
    EXPECT_EQ(reconsider(Scheme::slr, estimates), Scheme::aio);
    EXPECT_EQ(reconsider(Scheme::lr, estimates), std::nullopt);
}

TEST(Estimate, observed_traffic_becomes_rates_and_sets) {
    HotFilter filter = GODWIT_MUST(HotFilter::create({.disk_bytes = 1U << 30U})); // Valid.
    for (int i = 0; i < 6; ++i) {
        filter.note({.first = 0, .end = 8});
    }
    filter.note({.first = 10'000, .end = 10'008});
    const Workload load = workload_between(
        {}, {.reads = 10, .read_bytes = 40'960, .changes = 7}, std::chrono::seconds(2), &filter);
    EXPECT_DOUBLE_EQ(load.reads, 5);
    EXPECT_DOUBLE_EQ(load.writes, 3.5);
    EXPECT_DOUBLE_EQ(load.working_set_bytes, 2 * 65'536);
    EXPECT_DOUBLE_EQ(load.hot_bytes, 65'536);
    EXPECT_DOUBLE_EQ(load.hot_share, 6.0 / 7);
}

TEST(SpeedProbe, finds_what_the_profile_says) {
    testing::SimulatedTime time(1);
    testing::Medium medium(32U << 20U);
    auto disk = std::make_unique<testing::SimulatedDisk>(
        medium,
        time,
        testing::SimulatedDiskOptions{.latency_min = sys::Nanoseconds(1),
                                      .latency_max = sys::Nanoseconds(1)});
    const auto device = GODWIT_MUST(ThrottleDevice::create( // Simulated alarms.
        std::move(disk),
        time,
        {.name = "test",
         .read = {.bytes_per_second = 100'000'000, .seek = std::chrono::milliseconds(8)},
         .write = {.bytes_per_second = 50'000'000, .latency = std::chrono::milliseconds(1)}}));
    SpeedProbe probe(*device, time, SpeedProbe::May::read_and_write);
    std::optional<Result<DeviceSpeed>> answer;
    probe.start([&](Result<DeviceSpeed> speed) { answer.emplace(std::move(speed)); });
    while (!answer.has_value()) {
        ASSERT_TRUE(time.step());
    }
    ASSERT_TRUE(answer->has_value());
    EXPECT_NEAR((*answer)->read_bytes_per_second, 100e6, 15e6);
    EXPECT_NEAR((*answer)->write_bytes_per_second, 50e6, 6e6);
    EXPECT_NEAR((*answer)->read_latency_seconds, 8e-3, 1.5e-3);
    EXPECT_NEAR((*answer)->write_latency_seconds, 1.1e-3, 0.3e-3);
}

TEST(SpeedProbe, stopped_answers_once_and_abandoned_never) {
    testing::SimulatedTime time(1);
    testing::Medium medium(32U << 20U);
    testing::SimulatedDisk disk(medium, time, {});
    std::uint32_t answers = 0;
    SpeedProbe stopped(disk, time, SpeedProbe::May::read);
    stopped.start([&](const Result<DeviceSpeed>& speed) {
        EXPECT_EQ(speed.error().code(), ErrorCode::cancelled);
        ++answers;
    });
    stopped.stop();
    SpeedProbe abandoned(disk, time, SpeedProbe::May::read);
    abandoned.start([&](const Result<DeviceSpeed>&) { ++answers; });
    abandoned.abandon();
    while (time.step()) {
    }
    EXPECT_EQ(answers, 1U);
    EXPECT_EQ(disk.in_flight(), 0U);
}

} // namespace
} // namespace godwit::block
