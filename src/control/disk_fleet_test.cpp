#include "control/disk_fleet.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace godwit::control {
namespace {

Json speed(std::uint64_t read, std::uint64_t write, std::uint64_t microseconds) {
    return {{"read_bytes_per_second", read},
            {"write_bytes_per_second", write},
            {"read_us", microseconds},
            {"write_us", microseconds},
            {"wear_weight", 1.0}};
}

Json report(const Json& source, const Json& destination) {
    return {{"choice",
             {{"source", source},
              {"destination", destination},
              {"guest",
               {{"reads_per_second", 10},
                {"read_bytes_per_second", 40960},
                {"writes_per_second", 20},
                {"written_bytes_per_second", 81920},
                {"working_set_bytes", 1'000'000},
                {"hot_bytes", 1000},
                {"hot_share", 2.5}}}}}};
}

FleetDisk disk(const char* name, const char* from, const char* to, const Json& estimate) {
    FleetDisk made;
    made.machine = "web1";
    made.disk = name;
    made.bytes = std::uint64_t{1} << 30U;
    made.source_device = from;
    made.destination_device = to;
    EXPECT_TRUE(take_estimate(made, estimate).has_value());
    return made;
}

TEST(DiskFleet, estimates_of_a_vmm_are_checked) {
    FleetDisk made;
    EXPECT_FALSE(take_estimate(made, Json()).has_value());
    EXPECT_FALSE(take_estimate(made, {{"choice", 7}}).has_value());
    EXPECT_FALSE(
        take_estimate(made, report(speed(1'000'000, 1'000'000, 5), speed(0, 5, 5))).has_value());
    Json odd = report(speed(1'000'000, 1'000'000, 5), speed(1'000'000, 1'000'000, 5));
    odd["choice"]["guest"]["writes_per_second"] = -4;
    odd["choice"]["guest"]["working_set_bytes"] = "many";
    ASSERT_TRUE(take_estimate(made, odd).has_value());
    EXPECT_EQ(made.workload.writes, 0);
    EXPECT_EQ(made.workload.working_set_bytes, 0);
    EXPECT_EQ(made.workload.hot_share, 1);
    EXPECT_EQ(made.workload.read_bytes, 40960);
}

TEST(DiskFleet, of_several_measurements_of_a_device_the_best_counts) {
    const std::vector<FleetDisk> fleet{
        disk("disk0", "8:0", "8:16", report(speed(100, 100, 900), speed(500, 400, 80))),
        disk("disk1", "8:0", "8:16", report(speed(150, 150, 800), speed(450, 410, 90))),
        // What the first device writes at was a guess until somebody wrote there.
        disk("disk2", "8:16", "8:0", report(speed(480, 480, 85), speed(120, 70, 850)))};
    const FleetSituation found = situation_of(fleet, {.gamma = 0.25, .unsafe = true});
    ASSERT_EQ(found.devices, (std::vector<std::string>{"8:0", "8:16"}));
    const block::DeviceSpeed& slow = found.situation.devices[0];
    const block::DeviceSpeed& fast = found.situation.devices[1];
    EXPECT_EQ(slow.read_bytes_per_second, 150);
    EXPECT_EQ(slow.write_bytes_per_second, 70);
    EXPECT_DOUBLE_EQ(slow.read_latency_seconds, 800e-6);
    EXPECT_DOUBLE_EQ(slow.write_latency_seconds, 850e-6);
    EXPECT_EQ(fast.read_bytes_per_second, 500);
    EXPECT_EQ(fast.write_bytes_per_second, 410);
    EXPECT_DOUBLE_EQ(fast.read_latency_seconds, 80e-6);
    EXPECT_EQ(found.situation.disks[2].places.source, 1U);
    EXPECT_TRUE(found.situation.allows_lr);
    EXPECT_DOUBLE_EQ(found.situation.gamma, 0.25);
}

TEST(DiskFleet, only_what_waits_and_was_measured_is_planned) {
    std::vector<FleetDisk> fleet(
        3, disk("disk0", "8:0", "8:16", report(speed(9, 9, 1), speed(9, 9, 1))));
    fleet[0].outcome = DiskOutcome::left;
    fleet[1].estimated = false;
    const FleetSituation found = situation_of(fleet, {});
    EXPECT_EQ(found.disks, (std::vector<std::size_t>{2}));
    EXPECT_EQ(count(fleet, DiskOutcome::waiting), 2U);
}

TEST(DiskFleet, reports_and_progress_tell_every_disk) {
    std::vector<FleetDisk> fleet(
        2, disk("disk0", "8:0", "8:16", report(speed(9, 9, 1), speed(9, 9, 1))));
    fleet[0].outcome = DiskOutcome::under_way;
    fleet[0].scheme = block::Scheme::aio;
    fleet[0].phase = "copying";
    fleet[0].moving = R"({"cursor_bytes":5,"total_bytes":10,"secret":1})";
    fleet[1].outcome = DiskOutcome::refused;
    fleet[1].reason = std::string(1000, 'x');
    const Json progress = progress_of(fleet);
    EXPECT_EQ(progress["counts"]["under_way"], 1);
    EXPECT_EQ(progress["disks"][0]["cursor_bytes"], 5);
    EXPECT_FALSE(progress["disks"][0].contains("secret"));
    EXPECT_LE(progress["disks"][1]["reason"].get<std::string>().size(), 300U);
    const Json told = json_of(fleet);
    EXPECT_EQ(told["disks"][0]["scheme"], "aio");
    EXPECT_TRUE(told["disks"][1]["forecast"].is_null());
}

} // namespace
} // namespace godwit::control
