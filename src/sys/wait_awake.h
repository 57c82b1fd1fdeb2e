#pragma once

/// Waiting for another thread without sleeping. Worth it for what comes within microseconds: to
/// wake a thread on another processor takes tens of them where that processor is itself virtual.

#include <immintrin.h>

#include <chrono>
#include <thread>

namespace godwit::sys {

/// True as soon as `arrived()` is, which is asked again and again; false if it is not by the end of
/// `limit`. Gives the processor away between rounds, so that whoever is waited for gets it.
template <typename Predicate>
[[nodiscard]] bool wait_awake(Predicate arrived, std::chrono::nanoseconds limit) {
    constexpr int looks_per_round = 16;
    const auto end = std::chrono::steady_clock::now() + limit;
    do {
        for (int look = 0; look < looks_per_round; ++look) {
            if (arrived()) {
                return true;
            }
            _mm_pause();
        }
        std::this_thread::yield();
    } while (std::chrono::steady_clock::now() < end);
    return arrived();
}

} // namespace godwit::sys
