#pragma once

/// Random bytes as an interface, so that tests and the simulation bring their own. The only place
/// that asks the kernel for them is SystemRandom. Any thread. (A header of ours called sys/random.h
/// would hide the system's.)

#include "base/result.h"

#include <cstddef>
#include <span>

namespace godwit::sys {

class RandomSource {
  public:
    RandomSource() = default;
    RandomSource(const RandomSource&) = delete;
    RandomSource& operator=(const RandomSource&) = delete;
    virtual ~RandomSource() = default;
    /// Fills all of `out`.
    [[nodiscard]] virtual Status random_bytes(std::span<std::byte> out) noexcept = 0;
};

/// The kernel's generator, getrandom(2).
class SystemRandom final : public RandomSource {
  public:
    [[nodiscard]] Status random_bytes(std::span<std::byte> out) noexcept override;
};

/// The process-wide SystemRandom, for wiring in mains.
[[nodiscard]] RandomSource& system_random() noexcept;

} // namespace godwit::sys
