#include "sys/alarm.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>

#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace godwit::sys {

namespace {

class LoopAlarm final : public Alarm {
  public:
    LoopAlarm(Fd timer, std::move_only_function<void()> ring)
        : timer_(std::move(timer)), ring_(std::move(ring)) {}

    [[nodiscard]] Status watch(EventLoop& loop) {
        watch_ = GODWIT_TRY(loop.watch(timer_, EPOLLIN, [this](std::uint32_t) { expired(); }));
        return ok();
    }
    void set(Moment when) noexcept override {
        // A moment of zero would disarm the timer instead of ringing at once.
        arm(std::max(when.time_since_epoch(), Nanoseconds(1)));
    }
    void clear() noexcept override { arm(Nanoseconds(0)); }

  private:
    void arm(Nanoseconds at) const noexcept {
        const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(at);
        const itimerspec when{
            .it_interval = {},
            .it_value = {.tv_sec = seconds.count(), .tv_nsec = (at - seconds).count()}};
        // Fails only for a bad descriptor or value, and both are ours.
        GODWIT_ASSERT(::timerfd_settime(timer_.raw(), TFD_TIMER_ABSTIME, &when, nullptr) == 0);
    }
    void expired() {
        std::uint64_t expirations = 0;
        if (::read(timer_.raw(), &expirations, sizeof(expirations)) ==
            static_cast<ssize_t>(sizeof(expirations))) {
            ring_();
        } // Else it was set anew since it expired.
    }

    Fd timer_;
    std::move_only_function<void()> ring_;
    EventLoop::Handle watch_; ///< Last, so that it goes before the descriptor.
};

} // namespace

Result<std::unique_ptr<Alarm>> LoopAlarmClock::create_alarm(std::move_only_function<void()> ring) {
    Fd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    if (!timer.valid()) {
        return Error::from_errno(errno, "create an alarm");
    }
    auto alarm = std::make_unique<LoopAlarm>(std::move(timer), std::move(ring));
    GODWIT_TRY(alarm->watch(loop_));
    return alarm;
}

} // namespace godwit::sys
