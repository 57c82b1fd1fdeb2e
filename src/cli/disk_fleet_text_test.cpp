#include "cli/disk_fleet_text.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace godwit::cli {
namespace {

using control::Json;

TEST(disk_fleet_lines, those_under_way_come_first_and_all_are_counted) {
    const Json progress{
        {"counts", {{"moved", 1}, {"under_way", 1}, {"waiting", 1}}},
        {"measured", 3},
        {"disks",
         {{{"machine", "a"}, {"disk", "disk0"}, {"outcome", "moved"}, {"scheme", "slr"}},
          {{"machine", "b"}, {"disk", "disk0"}, {"outcome", "waiting"}, {"scheme", "slr"}},
          {{"machine", "c"},
           {"disk", "disk1"},
           {"outcome", "under_way"},
           {"scheme", "aio"},
           {"phase", "copying"},
           {"total_bytes", 200},
           {"cursor_bytes", 50}}}}};
    const std::vector<std::string> lines = disk_fleet_lines(progress, 2);
    ASSERT_EQ(lines.size(), 4U); // Heads, two disks, the sum.
    EXPECT_TRUE(lines[1].starts_with("c:disk1"));
    EXPECT_NE(lines[1].find("25%"), std::string::npos);
    EXPECT_TRUE(lines[2].starts_with("b:disk0"));
    EXPECT_EQ(lines[3], "1 of 3 moved, 1 under way, 1 waiting");
}

TEST(disk_fleet_lines, before_there_is_a_plan_measuring_is_counted) {
    const Json progress{{"counts", {{"waiting", 1}}},
                        {"measured", 0},
                        {"disks", {{{"machine", "a"}, {"disk", "disk0"}, {"outcome", "waiting"}}}}};
    EXPECT_EQ(disk_fleet_lines(progress, 5).back(), "0 of 1 measured, 1 waiting");
}

TEST(disk_fleet_text, report_says_where_disks_lie_and_why) {
    const Json report{{"counts", {{"moved", 1}, {"failed", 1}}},
                      {"moves_us", 2'000'000},
                      {"total_us", 3'000'000},
                      {"plan", nullptr},
                      {"disks",
                       {{{"machine", "a"},
                         {"disk", "disk0"},
                         {"outcome", "moved"},
                         {"source", "/old/a"},
                         {"destination", "/new/a"}},
                        {{"machine", "b"},
                         {"disk", "disk0"},
                         {"outcome", "failed"},
                         {"reason", "no room"},
                         {"source", "/old/b"},
                         {"destination", "/new/b"}}}}};
    const std::string text = disk_fleet_text(report);
    for (const char* part : {"/new/a", "/old/b", "failed: no room", "1 moved, 1 failed; 2.0 s"}) {
        EXPECT_NE(text.find(part), std::string::npos) << text;
    }
    EXPECT_EQ(text.find("/new/b"), std::string::npos);
}

TEST(disk_fleet_text, nonsense_is_survived) {
    for (const Json& nonsense :
         {Json(), Json(7), Json{{"disks", 7}}, Json{{"disks", {7}}, {"plan", {{"devices", 7}}}}}) {
        EXPECT_FALSE(disk_fleet_text(nonsense).empty());
        EXPECT_FALSE(disk_fleet_plan_text(nonsense).empty());
        EXPECT_FALSE(disk_fleet_lines(nonsense, 5).empty());
    }
}

} // namespace
} // namespace godwit::cli
