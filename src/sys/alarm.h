#pragma once

/// Alarms: moments at which an owner is called back on its loop, set and cleared without
/// allocating. An interface, so that simulations bring a time of their own.
///
/// Thread rule: the loop's thread. An alarm never rings from inside set().

#include "base/result.h"
#include "sys/clock.h"
#include "sys/event_loop.h"

#include <functional>
#include <memory>

namespace godwit::sys {

class Alarm {
  public:
    Alarm() = default;
    Alarm(const Alarm&) = delete;
    Alarm& operator=(const Alarm&) = delete;
    virtual ~Alarm() = default;
    /// Rings once at `when`, as soon as the loop comes to it; in place of what was set before.
    virtual void set(Moment when) noexcept = 0;
    virtual void clear() noexcept = 0;
};

class AlarmClock : public Clock {
  public:
    /// The alarm must go before the loop. `ring` may set it again, and must not destroy it.
    [[nodiscard]] virtual Result<std::unique_ptr<Alarm>>
    create_alarm(std::move_only_function<void()> ring) = 0;
};

/// Alarms of an EventLoop, one timerfd(2) each.
class LoopAlarmClock final : public AlarmClock {
  public:
    LoopAlarmClock(EventLoop& loop, const Clock& clock) : loop_(loop), clock_(clock) {}
    [[nodiscard]] Moment now() const noexcept override { return clock_.now(); }
    [[nodiscard]] std::int64_t unix_nanoseconds() const noexcept override {
        return clock_.unix_nanoseconds();
    }
    [[nodiscard]] Result<std::unique_ptr<Alarm>>
    create_alarm(std::move_only_function<void()> ring) override;

  private:
    EventLoop& loop_;
    const Clock& clock_;
};

} // namespace godwit::sys
