#pragma once

/// Ports or memory addresses and the devices behind them. Thread rule: any thread. Lookups take a
/// shared lock and release it before the device is called, so that a device may change the map
/// while it serves an access (a BAR moves by a configuration write). Devices therefore outlive the
/// vCPU threads, not only their ranges.

#include "bus/bus.h"

#include <optional>
#include <shared_mutex>
#include <span>
#include <vector>

namespace godwit::machine {

class AddressMap final : public bus::AddressSpace {
  public:
    /// More ranges than any machine has: 256 functions with 6 BARs, and the platform.
    static constexpr std::size_t ranges_max = 2048;

    [[nodiscard]] Status
    add(std::uint64_t start, std::uint64_t bytes, bus::BusDevice& device) override;
    void remove(std::uint64_t start) override;

    /// Reads or writes at `address`. Nobody there, or a range left half-way: reads give ones,
    /// writes are lost.
    void read(std::uint64_t address, std::span<std::byte> out) const;
    void write(std::uint64_t address, std::span<const std::byte> data) const;

  private:
    struct Range {
        std::uint64_t start;
        std::uint64_t bytes;
        bus::BusDevice* device;
    };
    struct Hit {
        bus::BusDevice* device;
        std::uint64_t offset;
    };
    [[nodiscard]] std::optional<Hit> find(std::uint64_t address, std::uint64_t bytes) const;

    mutable std::shared_mutex mutex_;
    std::vector<Range> ranges_; ///< Sorted by start, disjoint. Guarded by mutex_.
};

} // namespace godwit::machine
