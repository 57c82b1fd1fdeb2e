#include "cli/exchange_text.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace godwit::cli {
namespace {

using control::Json;

bool has(const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
}

TEST(plan_text, says_what_is_expected_and_what_speaks_against_it) {
    const Json plan{{"mode", "hot-restart"},
                    {"program", "/new/godwit-vmm"},
                    {"order", "name"},
                    {"concurrency", 2},
                    {"counts", {{"exchange", 1}, {"nothing", 0}, {"refused", 1}}},
                    {"machines",
                     {{{"machine", "a1"},
                       {"action", "exchange"},
                       {"build_ids", {"0123456789abcdef", "fedcba9876543210"}},
                       {"expected_blackout_us", 2100},
                       {"expected_from", "machine"},
                       {"expected_exchanges", 7},
                       {"carriers", {{{"resource", "memory"}, {"carrier", "pointer"}}}},
                       {"blockers", Json::array()}},
                      {{"machine", "b1"},
                       {"action", "refused"},
                       {"expected_blackout_us", nullptr},
                       {"blockers", {"too\nnew"}}}}}};
    const std::string text = plan_text(plan);
    EXPECT_TRUE(has(text, "0123456789ab -> fedcba987654")) << text;
    EXPECT_TRUE(has(text, "2.1 ms (its last 7)")) << text;
    EXPECT_TRUE(has(text, "unknown")) << text;
    EXPECT_TRUE(has(text, "memory: pointer")) << text;
    EXPECT_TRUE(has(text, "1 to exchange, 1 refused. Nothing was touched.")) << text;
    EXPECT_TRUE(has(text, "b1: too?new")) << text;
}

TEST(progress_lines, who_is_under_way_comes_first_and_all_are_counted) {
    const Json progress{{"counts", {{"done", 2}, {"under_way", 1}, {"waiting", 0}}},
                        {"machines",
                         {{{"machine", "a"}, {"outcome", "done"}, {"blackout_us", 900}},
                          {{"machine", "b"}, {"outcome", "done"}, {"blackout_us", 950}},
                          {{"machine", "c"}, {"outcome", "under_way"}, {"phase", "prepare"}}}}};
    const std::vector<std::string> lines = progress_lines(progress, 2);
    ASSERT_EQ(lines.size(), 4U);
    EXPECT_TRUE(has(lines[1], "prepare")) << lines[1];
    EXPECT_TRUE(has(lines[2], "900 us")) << lines[2];
    EXPECT_TRUE(has(lines[3], "2 of 3 done, 1 under way")) << lines[3];
}

TEST(exchange_text, says_so_if_the_host_did_not_confine_the_successor) {
    Json report{{"machine", "a1"},
                {"blackout_us", 800},
                {"service_partition", {{"confined", false}, {"reason", "no\nnamespaces"}}}};
    EXPECT_TRUE(has(exchange_text(report), "was not confined before: no?namespaces"));
    report["service_partition"]["reason"] = "switched off";
    EXPECT_FALSE(has(exchange_text(report), "confined"));
    report["service_partition"] = {{"confined", true}, {"reason", nullptr}};
    EXPECT_FALSE(has(exchange_text(report), "confined"));
}

TEST(exchange_texts, nonsense_is_shown_as_what_is_missing) {
    for (const Json& nonsense : {Json(), Json(7), Json::array({1, "x"}), Json::object()}) {
        EXPECT_FALSE(plan_text(nonsense).empty());
        EXPECT_FALSE(total_text(nonsense).empty());
        EXPECT_FALSE(exchange_text(nonsense).empty());
        EXPECT_FALSE(progress_lines(nonsense, 5).empty());
    }
    EXPECT_TRUE(has(history_text(Json::array({Json::object()})), "FINISHED"));
}

} // namespace
} // namespace godwit::cli
