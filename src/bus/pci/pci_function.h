#pragma once

/// One PCI function as its device builds it: type 0 configuration space (PCI Local Bus 3.0, section
/// 6.1) with capabilities, memory BARs that follow the guest's wishes through an AddressSpace, and
/// MSI-X. It knows nothing of the bus it sits on.
///
/// Thread rule: locked by its owner, one thread at a time; msix() has its own lock.
///
///     PciFunction function({.vendor = 0x1af4, ...}, address_space);
///     function.add_bar(0, 0x8000, Gpa{0xc0000000}, registers);
///     function.add_capability(capability_vendor, body);
///     function.connect();

#include "base/result.h"
#include "base/units.h"
#include "bus/bus.h"
#include "bus/pci/msix.h"

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace godwit::bus {

inline constexpr std::size_t config_space_bytes = 4096;
inline constexpr std::size_t bars_count = 6;
inline constexpr std::uint8_t capability_vendor_specific = 0x09;
inline constexpr std::uint8_t capability_msix = 0x11;

/// Where configuration cycles for one slot arrive. Any thread, several at once.
class ConfigTarget {
  public:
    ConfigTarget() = default;
    ConfigTarget(const ConfigTarget&) = delete;
    ConfigTarget& operator=(const ConfigTarget&) = delete;
    virtual ~ConfigTarget() = default;
    /// `offset` plus the size lies within config_space_bytes.
    virtual void read_config(std::uint32_t offset, std::span<std::byte> out) = 0;
    virtual void write_config(std::uint32_t offset, std::span<const std::byte> data) = 0;
};

struct PciIdentity {
    std::uint16_t vendor = 0;
    std::uint16_t device = 0;
    std::uint8_t revision = 0;
    std::uint32_t class_code = 0; ///< Base class, subclass, interface: 24 bits.
    std::uint16_t subsystem_vendor = 0;
    std::uint16_t subsystem = 0;
};

/// The part a guest has written; this is what is saved.
struct PciFunctionState {
    std::uint16_t command = 0;
    std::uint8_t cache_line_size = 0;
    std::uint8_t interrupt_line = 0;
    std::array<std::uint32_t, bars_count> bars{};
    std::optional<MsixState> msix;
};

class PciFunction {
  public:
    /// Tells that BAR `bar` is now decoded at an address, or no longer decoded.
    using BarMoved = std::function<void(std::size_t bar, std::optional<Gpa> address)>;

    PciFunction(const PciIdentity& identity, AddressSpace& space);
    PciFunction(const PciFunction&) = delete;
    PciFunction& operator=(const PciFunction&) = delete;
    /// Takes its BARs out of the address space.
    ~PciFunction();

    // Building, before connect().
    /// A 32-bit memory BAR of `bytes`, a power of two of at least 16; `device` answers it.
    [[nodiscard]] Status
    add_bar(std::size_t index, std::uint32_t bytes, Gpa start, BusDevice& device);
    /// Appends a capability whose body (behind id and next pointer) is `body`; bits set in
    /// `writable` (as long as body, or empty) can be written by the guest. Gives its offset.
    [[nodiscard]] Result<std::uint32_t> add_capability(std::uint8_t id,
                                                       std::span<const std::byte> body,
                                                       std::span<const std::byte> writable = {});
    /// Gives the function MSI-X with its table and pending bits at these offsets of BAR `bar`.
    [[nodiscard]] Status add_msix(std::unique_ptr<Msix> msix,
                                  std::size_t bar,
                                  std::uint32_t table_offset,
                                  std::uint32_t pending_offset);
    /// Takes over what a guest had written. Nothing is decoded before connect().
    [[nodiscard]] Status load(const PciFunctionState& state);
    void on_bar_moved(BarMoved callback) { bar_moved_ = std::move(callback); }
    /// Decodes the BARs from now on, as the command register says.
    void connect();

    void read_config(std::uint32_t offset, std::span<std::byte> out) const;
    void write_config(std::uint32_t offset, std::span<const std::byte> data);

    [[nodiscard]] PciFunctionState save() const;
    /// Null if the function has none.
    [[nodiscard]] Msix* msix() const noexcept { return msix_.get(); }
    /// Where a BAR is decoded now.
    [[nodiscard]] std::optional<Gpa> decoded_at(std::size_t bar) const;

  private:
    struct Bar {
        std::uint32_t bytes = 0; ///< 0: not implemented.
        BusDevice* device = nullptr;
        std::optional<std::uint32_t> decoded; ///< Where it stands in the address space.
    };
    template <typename T>
    [[nodiscard]] T field(std::uint32_t offset) const;
    template <typename T>
    void set_field(std::uint32_t offset, T value);
    void update_bars();
    void move_bar(std::size_t index, std::optional<std::uint32_t> wanted);
    void update_msix();

    AddressSpace& space_;
    std::vector<std::byte> bytes_;
    std::vector<std::byte> writable_; ///< Bits a guest may change, as long as bytes_.
    std::uint32_t last_capability_ = 0;
    std::uint32_t capabilities_end_ = 0x40;
    std::array<Bar, bars_count> bars_;
    std::unique_ptr<Msix> msix_;
    std::uint32_t msix_capability_ = 0;
    BarMoved bar_moved_;
    bool connected_ = false;
    std::uint64_t refused_moves_ = 0;
};

} // namespace godwit::bus
