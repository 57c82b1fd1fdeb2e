#pragma once

/// A carrier takes one kind of resource over to the new owner (design: pointer, preserved range,
/// stream, shared store). The engine drives all of them through the same phases.
///
/// Thread rule: the engine's thread. Every method may fail; after a failure the engine calls
/// abort() on every carrier that was prepared, last one first.

#include "base/result.h"
#include "handover/report.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace godwit::handover {

/// What is still to be carried before the pause, as far as the carrier knows.
struct Remaining {
    std::uint64_t bytes = 0;
    /// How fast the last round went, bytes per second; 0 if nothing was moved.
    std::uint64_t bytes_per_second = 0;
};

class Carrier {
  public:
    Carrier() = default;
    Carrier(const Carrier&) = delete;
    Carrier& operator=(const Carrier&) = delete;
    virtual ~Carrier() = default;

    /// "memory", "disks", "endpoints", "state".
    [[nodiscard]] virtual std::string_view resource() const noexcept = 0;
    /// Reasons against carrying, found while nothing is touched yet.
    [[nodiscard]] virtual std::vector<std::string> blockers() const = 0;
    /// Makes ready for the destination to be built; the guest runs.
    [[nodiscard]] virtual Status prepare() = 0;
    /// One round of copying while the guest runs.
    [[nodiscard]] virtual Result<Remaining> sync() = 0;
    /// What stays as it is once the devices are at rest; the guest runs.
    [[nodiscard]] virtual Status carry_at_rest() { return ok(); }
    /// The rest, while the guest stands still.
    [[nodiscard]] virtual Status carry_paused() = 0;
    /// What may be late, after the destination runs.
    [[nodiscard]] virtual Status settle() = 0;
    /// Everything temporary goes away. Cannot fail.
    virtual void abort() noexcept = 0;
    /// How it went over and what that copied.
    [[nodiscard]] virtual CarriedResource carried() const = 0;
};

} // namespace godwit::handover
