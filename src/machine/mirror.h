#pragma once

/// Proof that a successor has built the machine its predecessor runs (requirement HR-4): digests of
/// three classes of state, reckoned by each side from what it itself has. A value.

#include <cstdint>
#include <string_view>

namespace godwit::machine {

struct MirrorDigest {
    std::uint64_t memory = 0;  ///< Slots of guest memory: address, length, the object behind it.
    std::uint64_t devices = 0; ///< Which devices, where on the bus, on which back ends.
    std::uint64_t wiring = 0;  ///< Routes of interrupts, places of doorbells.
    friend bool operator==(const MirrorDigest&, const MirrorDigest&) = default;
};

/// "memory", "devices" or "wiring": the first class in which they differ; empty if in none.
[[nodiscard]] constexpr std::string_view difference(const MirrorDigest& a,
                                                    const MirrorDigest& b) noexcept {
    return a.memory != b.memory     ? "memory"
           : a.devices != b.devices ? "devices"
           : a.wiring != b.wiring   ? "wiring"
                                    : "";
}

} // namespace godwit::machine
