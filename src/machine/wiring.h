#pragma once

/// How a running machine's devices are wired to its KVM machine: where interrupts go and where
/// doorbells hang. A successor sets it up before the guest pauses, because each change of it costs
/// the kernel a grace period. A hint only: load() sets right what has changed since. A value.

#include "base/units.h"
#include "bus/bus.h"

#include <optional>
#include <vector>

namespace godwit::machine {

struct Wiring {
    static constexpr std::size_t vectors_max = 2048;
    static constexpr std::size_t doorbells_max = 4096;

    /// By vector in the order of their making; empty where the guest has set no route.
    std::vector<std::optional<bus::MsiMessage>> routes;
    /// By doorbell in the order of their making; empty where none hangs.
    std::vector<std::optional<Gpa>> doorbells;
    friend bool operator==(const Wiring&, const Wiring&) = default;
};

} // namespace godwit::machine
