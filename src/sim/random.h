#pragma once

/// The numbers of one simulation: all from its seed, the same on every machine. One thread.

#include <chrono>
#include <cstdint>

namespace godwit::sim {

/// SplitMix64 (Steele, Lea, Flood 2014).
class Random {
  public:
    explicit Random(std::uint64_t seed) : state_(seed) {}

    [[nodiscard]] std::uint64_t next() noexcept {
        state_ += 0x9e3779b97f4a7c15;
        std::uint64_t z = state_;
        z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27U)) * 0x94d049bb133111eb;
        return z ^ (z >> 31U);
    }
    /// 0 .. limit - 1; `limit` is not 0.
    [[nodiscard]] std::uint64_t below(std::uint64_t limit) noexcept { return next() % limit; }
    /// True once in `odds` times; never if `odds` is 0.
    [[nodiscard]] bool one_in(std::uint64_t odds) noexcept { return odds != 0 && below(odds) == 0; }
    [[nodiscard]] std::chrono::nanoseconds up_to(std::chrono::nanoseconds limit) noexcept {
        return std::chrono::nanoseconds(below(static_cast<std::uint64_t>(limit.count()) + 1));
    }

  private:
    std::uint64_t state_;
};

} // namespace godwit::sim
