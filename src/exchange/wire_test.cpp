#include "exchange/wire.h"
#include "sys/cancel.h"

#include <thread>

namespace godwit::exchange {
namespace {

constexpr std::chrono::milliseconds long_enough{5000};

std::pair<sys::MessageSocket, sys::MessageSocket> make_pair_of_sockets() {
    return GODWIT_MUST(sys::MessageSocket::pair());
}

Offer make_offer() {
    Offer offer{.instance = 7, .epoch = 3, .spec_json = "{}"};
    offer.sections.push_back({.name = "vcpu", .version = 2, .required = false});
    offer.frames.push_back({.page = 5, .host_frame = 99});
    GODWIT_ASSERT(
        offer.descriptors.add("ram", GODWIT_MUST(sys::create_memfd("ram", 4096))).has_value());
    return offer;
}

TEST(Wire, offer_arrives_with_its_descriptors) {
    auto [source, destination] = make_pair_of_sockets();
    ASSERT_TRUE(send(source, make_offer()).has_value());
    Offer offer = GODWIT_MUST(expect<Offer>(destination, long_enough));
    EXPECT_EQ(offer.instance, 7U);
    EXPECT_EQ(offer.epoch, 3U);
    ASSERT_EQ(offer.sections.size(), 1U);
    EXPECT_EQ(offer.sections[0].name, "vcpu");
    EXPECT_EQ(offer.sections[0].version, 2U);
    EXPECT_FALSE(offer.sections[0].required);
    ASSERT_EQ(offer.frames.size(), 1U);
    EXPECT_EQ(offer.frames[0].host_frame, 99U);
    EXPECT_TRUE(offer.descriptors.take("ram").has_value());
}

TEST(Wire, hello_tells_what_is_read) {
    auto [source, destination] = make_pair_of_sockets();
    Hello hello{.instance = 2, .version = "1", .build_id = "a"};
    hello.sections.push_back({.name = "rtc", .version = 4});
    ASSERT_TRUE(send(destination, hello).has_value());
    const Hello got = GODWIT_MUST(expect<Hello>(source, long_enough));
    ASSERT_EQ(got.sections.size(), 1U);
    EXPECT_EQ(got.sections[0].name, "rtc");
    EXPECT_EQ(got.sections[0].version, 4U);
}

TEST(Wire, failure_of_the_peer_is_its_error) {
    auto [source, destination] = make_pair_of_sockets();
    ASSERT_TRUE(
        send(destination, Failed{.code = ErrorCode::busy, .message = "no room"}).has_value());
    const auto answer = expect<Prepared>(source, long_enough);
    ASSERT_FALSE(answer.has_value());
    EXPECT_EQ(answer.error().code(), ErrorCode::busy);
    EXPECT_EQ(answer.error().to_string(), "no room");
}

TEST(Wire, message_out_of_order_is_corrupt) {
    auto [source, destination] = make_pair_of_sockets();
    ASSERT_TRUE(send(destination, Running{.epoch = 2}).has_value());
    const auto answer = expect<Prepared>(source, long_enough);
    ASSERT_FALSE(answer.has_value());
    EXPECT_EQ(answer.error().code(), ErrorCode::corrupt);
}

TEST(Wire, cancel_wakes_who_waits) {
    auto [source, destination] = make_pair_of_sockets();
    sys::Cancel cancel = GODWIT_MUST(sys::Cancel::create());
    const std::jthread canceller([&] { cancel.request(); });
    const auto answer = expect<Prepared>(source, long_enough, cancel.fd());
    ASSERT_FALSE(answer.has_value());
    EXPECT_EQ(answer.error().code(), ErrorCode::cancelled);
}

TEST(Wire, garbage_is_corrupt) {
    for (const std::string& bytes :
         {std::string("\xff\xff\xff\xff"), std::string(1, '\0'), std::string("hello there")}) {
        const auto message = decode({.bytes = bytes, .fds = {}});
        ASSERT_FALSE(message.has_value());
        EXPECT_EQ(message.error().code(), ErrorCode::corrupt);
    }
}

TEST(Wire, descriptors_that_do_not_match_their_names_are_corrupt) {
    auto [source, destination] = make_pair_of_sockets();
    ASSERT_TRUE(send(source, make_offer()).has_value());
    sys::Message packet = GODWIT_MUST(destination.receive(long_enough));
    packet.fds.clear();
    EXPECT_FALSE(decode(std::move(packet)).has_value());
}

// Every prefix of a valid message is refused or is a valid message, never a crash.
TEST(Wire, truncated_offer_never_crashes) {
    auto [source, destination] = make_pair_of_sockets();
    ASSERT_TRUE(send(source, make_offer()).has_value());
    const std::string whole = GODWIT_MUST(destination.receive(long_enough)).bytes;
    int refused = 0;
    for (std::size_t length = 0; length < whole.size(); ++length) {
        refused += decode({.bytes = whole.substr(0, length), .fds = {}}).has_value() ? 0 : 1;
    }
    EXPECT_GT(refused, 0);
}

TEST(Wire, hello_and_granted_keep_what_they_say) {
    auto [source, destination] = make_pair_of_sockets();
    ASSERT_TRUE(send(destination, Hello{.takes_previews = true, .takes_record_with_grant = true})
                    .has_value());
    const auto hello = expect<Hello>(source, long_enough);
    ASSERT_TRUE(hello.has_value());
    EXPECT_TRUE(hello->takes_previews && hello->takes_record_with_grant);
    ASSERT_TRUE(send(destination, Granted{.warmed_bytes = 5, .second_level = true}).has_value());
    const auto granted = expect<Granted>(source, long_enough);
    ASSERT_TRUE(granted.has_value());
    EXPECT_EQ(granted->warmed_bytes, 5U);
    EXPECT_TRUE(granted->second_level);
}

TEST(Wire, early_timing_is_asked_for_and_accounted_for) {
    auto [source, destination] = make_pair_of_sockets();
    Grant early;
    early.fetch_later = true;
    ASSERT_TRUE(send(source, WireMessage(std::move(early))).has_value());
    const auto grant = expect<Grant>(destination, long_enough);
    ASSERT_TRUE(grant.has_value());
    EXPECT_TRUE(grant->fetch_later);
    ASSERT_TRUE(send(destination, SettleAnswer{.fetched = {.bytes = 4096, .demand_faults = 7}})
                    .has_value());
    const auto answer = expect<SettleAnswer>(source, long_enough);
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->fetched.bytes, 4096U);
    EXPECT_EQ(answer->fetched.demand_faults, 7U);
}

} // namespace
} // namespace godwit::exchange
