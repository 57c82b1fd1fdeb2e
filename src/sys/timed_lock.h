#pragma once

/// Locking a mutex until a moment at most.

#include "sys/clock.h"

#include <chrono>
#include <mutex>

namespace godwit::sys {

/// Look at owns_lock(). Any thread.
[[nodiscard]] inline std::unique_lock<std::timed_mutex> lock_until(std::timed_mutex& mutex,
                                                                   Moment deadline) {
#ifdef __SANITIZE_THREAD__
    // The thread sanitizer of GCC 12 does not see locks taken by pthread_mutex_clocklock() and
    // calls their unlock a mistake; pthread_mutex_timedlock() it knows.
    const auto left = deadline - std::chrono::steady_clock::now();
    return {mutex,
            std::chrono::system_clock::now() +
                std::chrono::duration_cast<std::chrono::system_clock::duration>(left)};
#else
    return {mutex, deadline};
#endif
}

} // namespace godwit::sys
