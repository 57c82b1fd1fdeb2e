#include "control/json_text.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace godwit::control {
namespace {

TEST(parse_json, limits_come_before_parsing) {
    EXPECT_FALSE(parse_json(std::string(100, ' '), {.bytes_max = 99}).has_value());
    EXPECT_FALSE(parse_json(std::string(33, '[') + std::string(33, ']')).has_value());
    EXPECT_TRUE(parse_json(std::string(32, '[') + std::string(32, ']')).has_value());
    EXPECT_FALSE(parse_json(std::string(100'000, '[')).has_value());
    EXPECT_TRUE(parse_json(R"("[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"[")").has_value());
    EXPECT_FALSE(parse_json("{").has_value());
    EXPECT_FALSE(parse_json("\"\xff\"").has_value());
}

TEST(json_object, reads_what_is_there_and_names_what_is_wrong) {
    const Json body{{"name", "web1"}, {"count", 7}, {"force", true}, {"empty", nullptr}};
    JsonObject object = GODWIT_MUST(JsonObject::of(body)); // It is an object.
    EXPECT_EQ(GODWIT_MUST(object.required_text("name", 8)), "web1");
    EXPECT_EQ(GODWIT_MUST(object.required_number("count", {.max = 7})), 7U);
    EXPECT_TRUE(GODWIT_MUST(object.flag("force", false)));
    EXPECT_FALSE(GODWIT_MUST(object.text("empty", 8)).has_value());
    EXPECT_TRUE(object.finish().has_value());

    const Result<std::uint64_t> over = object.required_number("count", {.max = 6});
    ASSERT_FALSE(over.has_value());
    EXPECT_EQ(over.error().to_string(), "request: /count is 7: must be a whole number from 0 to 6");
    EXPECT_FALSE(object.text("name", 3).has_value());
    EXPECT_FALSE(object.flag("name", false).has_value());
    EXPECT_FALSE(object.required_number("name", {}).has_value());
    EXPECT_EQ(json_of(object.required_text("absent", 8).error())["path"], "/absent");
}

TEST(json_object, leftover_member_is_refused) {
    const Json body{{"name", "web1"}, {"nmae", 1}};
    JsonObject object = GODWIT_MUST(JsonObject::of(body)); // It is an object.
    EXPECT_TRUE(object.text("name", 8).has_value());
    const Status finished = object.finish();
    ASSERT_FALSE(finished.has_value());
    EXPECT_EQ(finished.error().to_string(), "request: /nmae: is not known here");
    EXPECT_FALSE(JsonObject::of(Json(3)).has_value());
}

TEST(lenient_members, wrong_types_give_the_default) {
    const Json message{{"role", 3}, {"epoch", "x"}, {"pid", -4}, {"state", "running"}};
    EXPECT_EQ(text_member(message, "role", "none"), "none");
    EXPECT_EQ(text_member(message, "state"), "running");
    EXPECT_EQ(number_member(message, "epoch", 9), 9U);
    EXPECT_EQ(number_member(message, "pid", 9), 9U);
    EXPECT_EQ(text_member(Json(3), "role", "none"), "none");
    EXPECT_EQ(text_member(Json{{"t", std::string(5000, 'x')}}, "t").size(), 1024U);
}

TEST(error_documents, go_there_and_back) {
    const Error error(ErrorCode::busy, "in use");
    const Error back = error_of(json_of(error));
    EXPECT_EQ(back.code(), ErrorCode::busy);
    EXPECT_EQ(back.to_string(), "in use");
    EXPECT_FALSE(json_of(error).contains("path"));
    const Error in_document(ErrorCode::invalid_argument,
                            "machine document: /disks/1/queues is 99: no");
    EXPECT_EQ(json_of(in_document)["path"], "/disks/1/queues");
    EXPECT_EQ(error_of(Json("nonsense")).code(), ErrorCode::internal);
}

} // namespace
} // namespace godwit::control
