#include "sys/alarm.h"

namespace godwit::sys {
namespace {

using std::chrono::milliseconds;

struct Ringing {
    std::unique_ptr<EventLoop> loop;
    LoopAlarmClock clock;
    int rings = 0;
    std::unique_ptr<Alarm> alarm;

    Ringing()
        : loop(GODWIT_MUST(EventLoop::create())), // Descriptors.
          clock(*loop, system_clock()),
          alarm(GODWIT_MUST(clock.create_alarm([this] { ++rings; }))) {} // Descriptors.

    /// Serves the loop until something was ready, at most `patience`.
    void serve(milliseconds patience) { EXPECT_TRUE(loop->run_once(patience).has_value()); }
};

TEST(LoopAlarm, rings_once_from_the_loop_and_not_from_set) {
    Ringing test;
    test.alarm->set(test.clock.now());
    EXPECT_EQ(test.rings, 0);
    test.serve(milliseconds(2000));
    test.serve(milliseconds(0));
    EXPECT_EQ(test.rings, 1);
}

TEST(LoopAlarm, moment_before_the_clock_began_rings_at_once) {
    Ringing test;
    test.alarm->set(Moment());
    test.serve(milliseconds(2000));
    EXPECT_EQ(test.rings, 1);
}

TEST(LoopAlarm, cleared_does_not_ring) {
    Ringing test;
    test.alarm->set(test.clock.now());
    test.alarm->clear();
    test.serve(milliseconds(5));
    EXPECT_EQ(test.rings, 0);
}

TEST(LoopAlarm, set_anew_rings_at_the_later_moment) {
    Ringing test;
    const Moment later = test.clock.now() + milliseconds(10);
    test.alarm->set(test.clock.now());
    test.alarm->set(later);
    while (test.rings == 0) {
        test.serve(milliseconds(2000));
    }
    EXPECT_GE(test.clock.now(), later);
}

} // namespace
} // namespace godwit::sys
