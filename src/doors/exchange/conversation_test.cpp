#include "base/result.h"
#include "doors/exchange/conversation.h"

#include <gtest/gtest.h>

namespace godwit::doors::exchange {
namespace {

using namespace std::chrono_literals;
using Json = nlohmann::json;

struct ConversationTest : ::testing::Test {
    void SetUp() override {
        auto pair = GODWIT_MUST(sys::MessageSocket::pair()); // sockets are to be had
        ours = std::make_unique<Conversation>(std::move(pair.first));
        raw = std::make_unique<sys::MessageSocket>(std::move(pair.second));
    }
    /// What `bytes` from the other side are taken for.
    ErrorCode code_of(std::string_view bytes) {
        EXPECT_TRUE(raw->send(bytes).has_value());
        const auto got = ours->expect("offer", 1s);
        return got.has_value() ? ErrorCode::internal : got.error().code();
    }
    std::unique_ptr<Conversation> ours;
    std::unique_ptr<sys::MessageSocket> raw;
};

TEST_F(ConversationTest, ALetterOfManyDescriptorsArrivesWhole) {
    const Conversation theirs(std::move(*raw));
    Letter letter{.word = "offer", .facts = {{"number", 7}}, .state = state::SavedState()};
    ASSERT_TRUE(letter.state->add({.id = {"a", 3}, .payload = "bytes"}).has_value());
    for (int i = 0; i < 450; ++i) {
        sys::Fd memory = GODWIT_MUST(sys::create_memfd("test", 1)); // there is room for a page
        ASSERT_TRUE(
            letter.descriptors.add("fd-" + std::to_string(i), std::move(memory)).has_value());
    }
    ASSERT_TRUE(theirs.send(std::move(letter)).has_value());
    auto got = ours->expect("offer", 1s);
    ASSERT_TRUE(got.has_value()) << got.error().to_string();
    EXPECT_EQ(number_in(*got, "number").value_or(0), 7U);
    EXPECT_EQ(got->descriptors.size(), 450U);
    EXPECT_TRUE(got->descriptors.take("fd-449").has_value());
    EXPECT_EQ(got->state->take({"a", 3})->payload, "bytes");
}

TEST_F(ConversationTest, TooManyDescriptorsAreNotSent) {
    Letter letter{.word = "offer", .facts = Json::object(), .state = {}};
    for (std::size_t i = 0; i <= descriptors_max; ++i) {
        ASSERT_TRUE(letter.descriptors.add("fd-" + std::to_string(i), sys::Fd()).has_value());
    }
    EXPECT_EQ(ours->send(std::move(letter)).error().code(), ErrorCode::resource_exhausted);
}

TEST_F(ConversationTest, WhatMakesNoSenseIsRefused) {
    EXPECT_EQ(code_of("nonsense"), ErrorCode::corrupt);
    EXPECT_EQ(code_of("[]"), ErrorCode::corrupt);
    EXPECT_EQ(code_of(R"({"word":"offer"})"), ErrorCode::corrupt);
    EXPECT_EQ(code_of(R"({"word":"offer","facts":[],"descriptors":[],"more":false})"),
              ErrorCode::corrupt);
    EXPECT_EQ(code_of(R"({"word":"offer","facts":{},"descriptors":[1],"more":false})"),
              ErrorCode::corrupt);
    EXPECT_EQ(code_of(R"({"word":"offer","facts":{},"descriptors":["absent"],"more":false})"),
              ErrorCode::corrupt);
    EXPECT_EQ(code_of(R"({"word":"offer","facts":{},"descriptors":[],"more":true})"),
              ErrorCode::corrupt); // without an end
    EXPECT_EQ(code_of(R"({"word":"users","facts":{},"descriptors":[],"more":false})"),
              ErrorCode::corrupt); // out of order
}

TEST_F(ConversationTest, AStateThatIsNoneIsRefused) {
    const sys::Fd memory = GODWIT_MUST(sys::create_memfd("test", 100)); // there is room
    const sys::Fd* const fds[] = {&memory};
    ASSERT_TRUE(
        raw->send(R"({"word":"offer","facts":{},"descriptors":["state"],"more":false})", fds)
            .has_value());
    EXPECT_EQ(ours->expect("offer", 1s).error().code(), ErrorCode::corrupt);
}

TEST_F(ConversationTest, AReasonArrivesWithItsCode) {
    const Conversation theirs(std::move(*raw));
    theirs.say_failed(Error(ErrorCode::unsupported, "not in this build"));
    const auto got = ours->expect("offer", 1s);
    ASSERT_FALSE(got.has_value());
    EXPECT_EQ(got.error().code(), ErrorCode::unsupported);
    EXPECT_EQ(got.error().to_string(), "not in this build");
}

TEST_F(ConversationTest, ThePeersEndAndItsSilenceAreToldApart) {
    EXPECT_EQ(ours->expect("offer", 1ms).error().code(), ErrorCode::timeout);
    raw.reset();
    EXPECT_EQ(ours->expect("offer", 1s).error().code(), ErrorCode::peer_closed);
}

} // namespace
} // namespace godwit::doors::exchange
