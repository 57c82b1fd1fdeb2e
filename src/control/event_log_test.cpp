#include "control/event_log.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <thread>

namespace godwit::control {
namespace {

using std::chrono::milliseconds;

class FixedClock final : public sys::Clock {
  public:
    [[nodiscard]] sys::Moment now() const noexcept override { return {}; }
    [[nodiscard]] std::int64_t unix_nanoseconds() const noexcept override { return time_ns; }
    std::int64_t time_ns = 1'700'000'000'123'456'789;
};

TEST(event_log, ids_are_times_and_never_repeat) {
    FixedClock clock;
    EventLog log(clock);
    const std::uint64_t first = log.append("a", "web1", Json::object());
    const std::uint64_t second = log.append("b", "", {{"x", 1}});
    EXPECT_EQ(first, 1'700'000'000'123'456U);
    EXPECT_EQ(second, first + 1);
    clock.time_ns = 0; // Somebody sets the clock back.
    EXPECT_EQ(log.append("c", "", Json::object()), second + 1);
    EXPECT_EQ(log.newest(), second + 1);
}

TEST(event_log, replay_starts_after_the_given_id) {
    FixedClock clock;
    EventLog log(clock);
    const std::uint64_t first = log.append("a", "web1", {{"state", "running"}});
    log.append("b", "", Json::object());
    const EventLog::Batch batch = log.read(first, 10, milliseconds(0));
    ASSERT_EQ(batch.events.size(), 1U);
    EXPECT_EQ(batch.events[0].type, "b");
    EXPECT_FALSE(batch.gap);
    const Json body = Json::parse(log.read(0, 1, milliseconds(0)).events[0].json);
    EXPECT_EQ(body["machine"], "web1");
    EXPECT_EQ(body["state"], "running");
    EXPECT_EQ(body["time"], "2023-11-14T22:13:20.123Z");
}

TEST(event_log, forgotten_events_show_as_a_gap) {
    FixedClock clock;
    EventLog log(clock, 2);
    const std::uint64_t first = log.append("a", "", Json::object());
    log.append("b", "", Json::object());
    EXPECT_FALSE(log.read(first, 10, milliseconds(0)).gap);
    log.append("c", "", Json::object());
    log.append("d", "", Json::object());
    const EventLog::Batch batch = log.read(first, 10, milliseconds(0));
    EXPECT_TRUE(batch.gap);
    ASSERT_EQ(batch.events.size(), 2U);
    EXPECT_EQ(batch.events[0].type, "c");
}

TEST(event_log, reader_waits_for_news_and_for_the_end) {
    FixedClock clock;
    EventLog log(clock);
    std::jthread writer([&] { log.append("late", "", Json::object()); });
    const EventLog::Batch batch = log.read(log.newest() - 1, 10, milliseconds(10'000));
    writer.join();
    EXPECT_EQ(log.read(0, 10, milliseconds(0)).events.size(), 1U);
    EXPECT_FALSE(batch.closed);
    std::jthread closer([&] { log.close(); });
    EXPECT_TRUE(log.read(log.newest(), 10, milliseconds(10'000)).closed);
}

} // namespace
} // namespace godwit::control
