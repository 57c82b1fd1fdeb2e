#pragma once

/// Time as an interface, so that tests and the simulation bring their own. The only place outside
/// simulation that asks the kernel for the time is SystemClock.

#include <chrono>
#include <cstdint>

namespace godwit::sys {

using Nanoseconds = std::chrono::nanoseconds;
/// A moment of CLOCK_MONOTONIC, comparable between processes of one host.
using Moment = std::chrono::time_point<std::chrono::steady_clock, Nanoseconds>;

class Clock {
  public:
    Clock() = default;
    Clock(const Clock&) = delete;
    Clock& operator=(const Clock&) = delete;
    virtual ~Clock() = default;
    [[nodiscard]] virtual Moment now() const noexcept = 0;
    /// Nanoseconds since 1970 UTC.
    [[nodiscard]] virtual std::int64_t unix_nanoseconds() const noexcept = 0;
};

/// The host's clocks. Any thread.
class SystemClock final : public Clock {
  public:
    [[nodiscard]] Moment now() const noexcept override;
    [[nodiscard]] std::int64_t unix_nanoseconds() const noexcept override;
};

/// The process-wide SystemClock, for wiring in mains and tests.
[[nodiscard]] const Clock& system_clock() noexcept;

[[nodiscard]] constexpr std::int64_t microseconds_between(Moment from, Moment to) noexcept {
    return std::chrono::duration_cast<std::chrono::microseconds>(to - from).count();
}

} // namespace godwit::sys
