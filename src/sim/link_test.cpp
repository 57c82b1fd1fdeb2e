#include "sim/link.h"

namespace godwit::sim {
namespace {

using std::chrono::seconds;

TEST(Link, packets_arrive_late_and_in_order) {
    Executor executor(3);
    auto [here, there] = LinkEnd::pair(executor, {.delay_max = seconds(5)});
    std::vector<Kind> heard;
    executor.spawn("listener", [&heard, end = there] {
        heard.push_back(GODWIT_MUST(end->receive(seconds(6))).kind);
        heard.push_back(GODWIT_MUST(end->receive(seconds(6))).kind);
    });
    ASSERT_TRUE(here->send({.kind = Kind::hello}).has_value());
    ASSERT_TRUE(here->send({.kind = Kind::offer}).has_value());
    while (executor.step()) {
    }
    EXPECT_EQ(heard, (std::vector{Kind::hello, Kind::offer}));
}

TEST(Link, lost_packet_is_a_timeout_and_a_dropped_end_a_closed_peer) {
    Executor executor(3);
    auto [here, there] = LinkEnd::pair(executor, {.lost_odds = 1});
    std::vector<ErrorCode> codes;
    executor.spawn("listener", [&codes, end = there] {
        codes.push_back(end->receive(seconds(2)).error().code());
        codes.push_back(end->receive(seconds(20)).error().code());
    });
    executor.spawn("speaker", [&executor, end = std::move(here)]() mutable {
        EXPECT_TRUE(end->send({.kind = Kind::hello}).has_value());
        executor.let_pass(seconds(4));
        end.reset();
    });
    while (executor.step()) {
    }
    EXPECT_EQ(codes, (std::vector{ErrorCode::timeout, ErrorCode::peer_closed}));
}

TEST(Link, unexpected_packet_is_corrupt) {
    Executor executor(3);
    auto [here, there] = LinkEnd::pair(executor, {});
    ASSERT_TRUE(here->send({.kind = Kind::offer}).has_value());
    ErrorCode code = ErrorCode::internal;
    executor.spawn("listener", [&code, end = there] {
        code = end->expect(Kind::hello, seconds(1)).error().code();
    });
    while (executor.step()) {
    }
    EXPECT_EQ(code, ErrorCode::corrupt);
}

} // namespace
} // namespace godwit::sim
