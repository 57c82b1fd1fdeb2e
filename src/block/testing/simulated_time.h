#pragma once

/// For tests and simulations: time that passes only in step(), and the dice of one seed. Alarms of
/// one moment ring in an order by the seed. One thread.

#include "sys/alarm.h"

#include <cstdint>
#include <map>
#include <random>

namespace godwit::block::testing {

class SimulatedTime final : public sys::AlarmClock {
  public:
    explicit SimulatedTime(std::uint64_t seed) : dice_(seed) {}

    [[nodiscard]] sys::Moment now() const noexcept override { return now_; }
    [[nodiscard]] std::int64_t unix_nanoseconds() const noexcept override {
        return now_.time_since_epoch().count();
    }
    [[nodiscard]] Result<std::unique_ptr<sys::Alarm>>
    create_alarm(std::move_only_function<void()> ring) override;

    /// Rings the next alarm; false if none is set.
    bool step();
    [[nodiscard]] std::uint64_t steps() const noexcept { return steps_; }

    /// 0 .. limit - 1; `limit` is not 0.
    [[nodiscard]] std::uint64_t below(std::uint64_t limit) { return dice_() % limit; }
    [[nodiscard]] bool one_in(std::uint64_t odds) { return odds != 0 && below(odds) == 0; }

  private:
    class SimulatedAlarm;
    struct Due {
        sys::Moment when;
        std::uint64_t lot = 0;
        friend auto operator<=>(const Due&, const Due&) = default;
    };

    std::mt19937_64 dice_;
    sys::Moment now_{std::chrono::seconds(1)};
    std::multimap<Due, SimulatedAlarm*> set_;
    std::uint64_t steps_ = 0;
};

} // namespace godwit::block::testing
