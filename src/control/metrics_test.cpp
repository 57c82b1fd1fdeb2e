#include "control/metrics.h"

#include <gtest/gtest.h>

#include <cmath>

namespace godwit::control {
namespace {

TEST(histogram, values_fall_into_cumulative_buckets) {
    Histogram histogram;
    histogram.observe(0.0001); // On the first bound.
    histogram.observe(0.004);
    histogram.observe(99);
    histogram.observe(-1);
    histogram.observe(std::nan(""));
    EXPECT_EQ(histogram.count(), 3U);
    EXPECT_EQ(histogram.at_most(3), 1U);
    EXPECT_EQ(histogram.at_most(8), 2U);
    EXPECT_EQ(histogram.at_most(Histogram::bounds_seconds.size() - 1), 2U);
    EXPECT_DOUBLE_EQ(histogram.sum_seconds(), 99.0041);
}

TEST(metrics, text_has_every_state_and_ends_as_the_format_wants) {
    Metrics metrics;
    metrics.operation_finished("exchange", "succeeded");
    metrics.operation_finished("exchange", "succeeded");
    metrics.machine_ended("killed");
    metrics.machine_ended("surprise\n{}");
    metrics.exchange_ended({.mode = "hot-restart",
                            .outcome = "done",
                            .phases = {{"pause", 0.0002}},
                            .blackout_seconds = 0.002});
    metrics.exchange_ended({.mode = "hot-restart", .outcome = "surprise", .phases = {}});
    metrics.disk_move_ended("mirror", "moved", 0.003);
    metrics.disk_move_ended("magic", "surprise", -1);
    const std::string text =
        metrics.render({{"running", 3}}, {.version = "1\"2", .build_id = "ab"});
    const auto has = [&](const char* line) { return text.find(line) != std::string::npos; };
    EXPECT_TRUE(has("godwit_machines{state=\"running\"} 3\n"));
    EXPECT_TRUE(has("godwit_machines{state=\"paused\"} 0\n"));
    EXPECT_TRUE(has("godwit_operations_total{kind=\"exchange\",outcome=\"succeeded\"} 2\n"));
    EXPECT_TRUE(has("godwit_machines_ended_total{reason=\"other\"} 1\n"));
    EXPECT_TRUE(has("godwit_build_info{version=\"1\\\"2\",build_id=\"ab\"} 1\n"));
    EXPECT_TRUE(has("godwit_exchange_blackout_seconds_bucket{le=\"0.001\"} 0\n"));
    EXPECT_TRUE(has("godwit_exchange_blackout_seconds_bucket{le=\"0.0025\"} 1\n"));
    EXPECT_TRUE(has("godwit_exchange_blackout_seconds_bucket{le=\"+Inf\"} 1\n"));
    EXPECT_TRUE(has("godwit_exchanges_total{mode=\"hot-restart\",outcome=\"done\"} 1\n"));
    EXPECT_TRUE(has("godwit_exchanges_total{mode=\"hot-restart\",outcome=\"other\"} 1\n"));
    EXPECT_TRUE(has("godwit_disk_moves_total{scheme=\"mirror\",outcome=\"moved\"} 1\n"));
    EXPECT_TRUE(has("godwit_disk_moves_total{scheme=\"other\",outcome=\"other\"} 1\n"));
    EXPECT_TRUE(has("godwit_disk_move_pause_seconds_count{scheme=\"mirror\"} 1\n"));
    EXPECT_FALSE(has("godwit_disk_move_pause_seconds_count{scheme=\"other\"}"));
    const std::string of_pause =
        "godwit_exchange_phase_seconds_bucket{mode=\"hot-restart\",phase=\"pause\",le=";
    EXPECT_TRUE(has((of_pause + "\"0.0001\"} 0\n").c_str()));
    EXPECT_TRUE(has((of_pause + "\"0.00025\"} 1\n").c_str()));
    EXPECT_TRUE(has("godwit_exchange_blackout_seconds_count 1\n"));
    EXPECT_TRUE(text.ends_with("# EOF\n"));
}

} // namespace
} // namespace godwit::control
