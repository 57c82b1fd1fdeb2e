#pragma once

/// The MSI-X vectors of one PCI function: table, pending bits and masking (PCI Local Bus 3.0,
/// section 6.8.2), on top of bus::MsiVector. A vector that is masked keeps its interrupt as a
/// pending bit and delivers it when it is unmasked.
///
/// Thread rule: any thread. signal() takes the lock shared and never waits for a device, so that
/// I/O threads may call it at any time. route() and unroute() of a vector, which are ioctls, run
/// under the lock because no interrupt may pass between the mask bit and the route.

#include "base/result.h"
#include "bus/bus.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <span>
#include <vector>

namespace godwit::bus {

inline constexpr std::size_t msix_vectors_max = 256;
inline constexpr std::uint64_t msix_entry_bytes = 16;

struct MsixEntry {
    MsiMessage message;
    bool masked = true;
    bool pending = false;
    friend bool operator==(const MsixEntry&, const MsixEntry&) = default;
};

/// What is saved.
struct MsixState {
    bool enabled = false;
    bool function_masked = false;
    std::vector<MsixEntry> entries;
};

class Msix {
  public:
    /// `vectors` is 1..msix_vectors_max.
    [[nodiscard]] static Result<std::unique_ptr<Msix>> create(MsiRouter& router,
                                                              std::size_t vectors);

    [[nodiscard]] std::size_t size() const noexcept { return vectors_.size(); }
    /// Raises a vector; ignored beyond the table and while MSI-X is disabled.
    void signal(std::size_t vector) noexcept;

    void read_table(std::uint64_t offset, std::span<std::byte> out) const;
    /// Four or eight aligned bytes; anything else is ignored.
    void write_table(std::uint64_t offset, std::span<const std::byte> data);
    void read_pending(std::uint64_t offset, std::span<std::byte> out) const;
    /// The enable and function mask bits of the capability's message control.
    void set_control(bool enabled, bool function_masked);

    [[nodiscard]] MsixState save() const;
    /// Takes a saved table over and connects its vectors; its size must be ours.
    [[nodiscard]] Status load(const MsixState& state);

  private:
    struct Vector {
        std::unique_ptr<MsiVector> line;
        MsiMessage message;
        bool masked = true;
        std::atomic<bool> pending{false};
        std::optional<MsiMessage> routed; ///< Where `line` points; empty while it is cut off.
    };

    Msix() = default;
    void update(Vector& vector);
    void update_all();

    mutable std::shared_mutex mutex_; ///< A leaf: nothing else is locked under it.
    bool enabled_ = false;            ///< All below guarded by mutex_, `pending` only by itself.
    bool function_masked_ = false;
    std::uint64_t refused_routes_ = 0;
    std::vector<std::unique_ptr<Vector>> vectors_; ///< The list itself never changes.
};

} // namespace godwit::bus
