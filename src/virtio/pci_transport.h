#pragma once

/// A modern virtio device on PCI (virtio 1.2, section 4.1): one BAR with common, ISR, device and
/// notify registers and the MSI-X tables, between one VirtioDevice and the machine's buses.
///
/// Thread rule: one lock per transport; vCPU threads come in through the buses, the control thread
/// through wake(), quiesce() and save(). Kicks, interrupts and the DeviceHost side never take that
/// lock, because the device's I/O thread must not wait for a vCPU that waits for the I/O thread.
/// Lock order: transport, then MSI-X.
///
///     auto disk = GODWIT_TRY(BlkDevice::create(...));
///     auto transport = GODWIT_TRY(PciTransport::create(args, std::move(disk)));
///     transport->wake();

#include "base/result.h"
#include "bus/bus.h"
#include "bus/pci/pci_bus.h"
#include "bus/pci/pci_function.h"
#include "memory/guest_memory.h"
#include "state/state_unit.h"
#include "virtio/common_config.h"
#include "virtio/virtio_device.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace godwit::virtio {

/// One vector for each queue and one for the configuration fit into the MSI-X table.
inline constexpr std::size_t transport_queues_max = bus::msix_vectors_max - 1;

struct PciTransportState;

class PciTransport final : public state::StateUnit,
                           private bus::ConfigTarget,
                           private bus::BusDevice,
                           private DeviceHost {
  public:
    /// Where the device goes. Everything outlives the transport.
    struct Args {
        std::shared_ptr<memory::GuestMemory> memory;
        bus::PciBus& bus;
        bus::AddressSpace& address_space; ///< Guest-physical.
        bus::MsiRouter& msi_router;
        bus::DoorbellRegistrar& doorbells;
        std::uint8_t slot = 1;
    };

    /// A device as after power-on, in its slot and at rest.
    [[nodiscard]] static Result<std::unique_ptr<PciTransport>>
    create(const Args& args, std::unique_ptr<VirtioDevice> device);
    /// From section "virtio-pci" and a device restored from its own section: activated if it was,
    /// still at rest. The section is checked as outside data; an error leaves nothing behind.
    [[nodiscard]] static Result<std::unique_ptr<PciTransport>>
    restore(const Args& args, std::unique_ptr<VirtioDevice> device, const state::Section& section);
    ~PciTransport() override;

    [[nodiscard]] VirtioDevice& device() noexcept { return *device_; }
    /// The device's own section as a StateUnit, saved beside this one.
    [[nodiscard]] const state::StateUnit& device_unit() const noexcept { return device_unit_; }
    /// See VirtioDevice.
    void wake();
    void quiesce();
    /// As VirtioDevice::quiesce_until(); also false while a vCPU is held up in the device.
    [[nodiscard]] bool quiesce_until(std::chrono::steady_clock::time_point deadline);

    [[nodiscard]] state::SectionType section_type() const override;
    [[nodiscard]] state::SectionId section_id() const override;
    [[nodiscard]] Result<state::Saved> save() const override;
    [[nodiscard]] std::string save_blocker() const override { return {}; }

  private:
    class DeviceUnit final : public state::StateUnit {
      public:
        explicit DeviceUnit(const PciTransport& transport) : transport_(transport) {}
        [[nodiscard]] state::SectionType section_type() const override;
        [[nodiscard]] state::SectionId section_id() const override;
        [[nodiscard]] Result<state::Saved> save() const override;
        [[nodiscard]] std::string save_blocker() const override;

      private:
        const PciTransport& transport_;
    };

    PciTransport(const Args& args, std::unique_ptr<VirtioDevice> device);
    [[nodiscard]] Status build(bus::MsiRouter& msi_router);
    [[nodiscard]] Status add_capabilities();
    [[nodiscard]] Status load(const PciTransportState& state);
    [[nodiscard]] Status connect();

    // bus::ConfigTarget
    void read_config(std::uint32_t offset, std::span<std::byte> out) override;
    void write_config(std::uint32_t offset, std::span<const std::byte> data) override;
    [[nodiscard]] std::optional<std::uint64_t> window_target(std::uint32_t offset,
                                                             std::size_t bytes) const;
    // bus::BusDevice: the BAR
    void read(std::uint64_t offset, std::span<std::byte> out) override;
    void write(std::uint64_t offset, std::span<const std::byte> data) override;
    void read_locked(std::uint64_t offset, std::span<std::byte> out);
    void write_locked(std::uint64_t offset, std::span<const std::byte> data);
    void kick(std::uint64_t notify_offset) noexcept;
    // DeviceHost: any thread, without the lock
    void notify_queue(std::uint16_t queue) noexcept override;
    void notify_config() noexcept override;
    void needs_reset(const Error& reason) noexcept override;

    void apply(CommonConfig::Effect effect);
    [[nodiscard]] Status activate();
    void reset_device();
    void move_doorbells(std::optional<Gpa> bar);

    std::shared_ptr<memory::GuestMemory> memory_;
    bus::PciBus& bus_;
    bus::DoorbellRegistrar& registrar_;
    const std::uint8_t slot_;
    DeviceUnit device_unit_{*this};

    mutable std::timed_mutex mutex_;
    std::unique_ptr<VirtioDevice> device_; ///< Called only under mutex_.
    CommonConfig config_;                  ///< Guarded by mutex_, but for its any-thread part.
    bus::PciFunction function_;            ///< Guarded by mutex_.
    std::uint32_t window_capability_ = 0;  ///< Where the PCI access capability is.
    bool in_slot_ = false;                 ///< The bus knows us.
    bool active_ = false;                  ///< The device is activated. Guarded by mutex_.
    std::optional<Gpa> doorbells_at_;      ///< BAR address of the registered doorbells.
    std::vector<bool> doorbell_registered_;
    std::vector<sys::EventFd> doorbells_; ///< One per queue, for the life of the transport.
    std::atomic<std::uint8_t> isr_{0};
    std::atomic<std::uint64_t> resets_needed_{0};
};

} // namespace godwit::virtio
