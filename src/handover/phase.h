#pragma once

/// The phases every mechanism goes through, and the stopwatch that splits a handover into them.
///
///     plan -> prepare -> sync -> pause -> commit -> resume -> settle
///              |          |        |        ^
///              +----------+--------+--------+ abort: the source runs again, everything temporary
///              is gone

#include "sys/clock.h"

#include <array>
#include <cstdint>
#include <string_view>

namespace godwit::handover {

enum class Phase : std::uint8_t { plan, prepare, sync, pause, commit, resume, settle };
inline constexpr std::size_t phase_count = 7;

[[nodiscard]] std::string_view name_of(Phase phase) noexcept;

/// How long each phase took. Owner thread only.
class PhaseTimes {
  public:
    explicit PhaseTimes(const sys::Clock& clock) : clock_(&clock), since_(clock.now()) {}
    /// Ends the running phase and starts `next`; a handover starts in plan.
    void enter(Phase next) noexcept;
    /// Ends the running phase for good.
    void finish() noexcept { enter(current_); }
    [[nodiscard]] Phase current() const noexcept { return current_; }
    [[nodiscard]] sys::Nanoseconds of(Phase phase) const noexcept {
        return times_[static_cast<std::size_t>(phase)];
    }
    /// Moves `part` from one phase to another: the destination knows better where it was spent.
    void shift(Phase from, Phase to, sys::Nanoseconds part) noexcept;

  private:
    const sys::Clock* clock_;
    Phase current_ = Phase::plan;
    sys::Moment since_;
    std::array<sys::Nanoseconds, phase_count> times_{};
};

} // namespace godwit::handover
