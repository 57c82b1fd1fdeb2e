#include "sys/clock.h"

namespace godwit::sys {

Moment SystemClock::now() const noexcept {
    return std::chrono::steady_clock::now();
}

std::int64_t SystemClock::unix_nanoseconds() const noexcept {
    return std::chrono::duration_cast<Nanoseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
}

const Clock& system_clock() noexcept {
    static const SystemClock clock;
    return clock;
}

} // namespace godwit::sys
