#pragma once

/// PCI bus 0: 32 slots of one function each, a host bridge in slot 0, reached through ECAM and
/// through the ports 0xcf8 and 0xcfc. BARs get their first address here, so that a guest without
/// firmware finds working devices.
///
/// Thread rule: ecam() and ports() any thread, several at once; building and removing while no vCPU
/// runs. It locks nothing itself while a function is called: functions lock themselves.

#include "base/result.h"
#include "base/units.h"
#include "bus/bus.h"
#include "bus/pci/pci_function.h"
#include "state/state_unit.h"

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

namespace godwit::bus {

inline constexpr std::size_t pci_slots = 32;
/// ECAM of one bus: 256 functions of 4096 bytes.
inline constexpr std::uint64_t ecam_bytes = 1ULL << 20U;
inline constexpr std::uint64_t config_ports_start = 0xcf8;
inline constexpr std::uint64_t config_ports_count = 8;
/// Where BARs are placed.
inline constexpr Gpa bar_window_start{0xc000'0000};
inline constexpr Gpa bar_window_end{0xe000'0000};

class PciBus final : public state::StateUnit {
  public:
    static constexpr state::SectionType section{"pci-bus", 1};

    /// `space` is the guest-physical one, for the bridge; it outlives the bus.
    [[nodiscard]] static Result<std::unique_ptr<PciBus>> create(AddressSpace& space);
    /// A bus as a guest had left it. Functions are added again, restored themselves.
    [[nodiscard]] static Result<std::unique_ptr<PciBus>> restore(AddressSpace& space,
                                                                 const state::Section& saved);

    /// Puts a function in a slot (1..31); it outlives the bus or is removed.
    [[nodiscard]] Status add(std::uint8_t slot, ConfigTarget& function);
    void remove(std::uint8_t slot) noexcept;
    /// The first address of a BAR of `bytes` (a power of two), for a function about to be added.
    [[nodiscard]] Result<Gpa> take_bar_address(std::uint64_t bytes);

    /// Answers ecam_bytes of guest memory, wherever the machine puts it.
    [[nodiscard]] BusDevice& ecam() noexcept { return ecam_; }
    /// Answers config_ports_count ports from config_ports_start. Byte writes to 0xcf9 are ignored.
    [[nodiscard]] BusDevice& ports() noexcept { return ports_; }

    [[nodiscard]] state::SectionType section_type() const override { return section; }
    [[nodiscard]] state::SectionId section_id() const override { return section.id(); }
    [[nodiscard]] Result<state::Saved> save() const override;
    [[nodiscard]] std::string save_blocker() const override { return {}; }

  private:
    class Ecam final : public BusDevice {
      public:
        explicit Ecam(PciBus& bus) : bus_(bus) {}
        void read(std::uint64_t offset, std::span<std::byte> out) override;
        void write(std::uint64_t offset, std::span<const std::byte> data) override;

      private:
        PciBus& bus_;
    };
    class Ports final : public BusDevice {
      public:
        explicit Ports(PciBus& bus) : bus_(bus) {}
        void read(std::uint64_t offset, std::span<std::byte> out) override;
        void write(std::uint64_t offset, std::span<const std::byte> data) override;

      private:
        friend class PciBus;
        PciBus& bus_;
        std::atomic<std::uint32_t> address_{0};
    };
    class HostBridge final : public ConfigTarget {
      public:
        explicit HostBridge(AddressSpace& space);
        void read_config(std::uint32_t offset, std::span<std::byte> out) override;
        void write_config(std::uint32_t offset, std::span<const std::byte> data) override;

      private:
        friend class PciBus;
        mutable std::mutex mutex_;
        PciFunction function_; ///< Guarded by mutex_.
    };

    explicit PciBus(AddressSpace& space);
    /// `address` is that of ECAM: bus, device, function, register.
    void read_config(std::uint64_t address, std::span<std::byte> out) const;
    void write_config(std::uint64_t address, std::span<const std::byte> data) const;
    [[nodiscard]] ConfigTarget* target_of(std::uint64_t address, std::size_t bytes) const;

    HostBridge bridge_;
    std::array<ConfigTarget*, pci_slots> slots_{};
    std::uint64_t next_bar_address_ = bar_window_start.value;
    Ecam ecam_;
    Ports ports_;
};

} // namespace godwit::bus
