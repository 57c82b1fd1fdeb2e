#pragma once

/// The virtio devices of a machine on their PCI transports, made new or from a saved state.
/// Control thread, except where stated.

#include "bus/bus.h"
#include "bus/pci/pci_bus.h"
#include "machine/devices/back_ends.h"
#include "machine/devices/device_plan.h"
#include "machine/machine.h"
#include "state/saved_state.h"

#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace godwit::virtio {
class BalloonDevice;
class BlkDevice;
class ConsoleDevice;
class NetDevice;
class PciTransport;
class VirtioDevice;
} // namespace godwit::virtio

namespace godwit::machine {

class DeviceSet {
  public:
    /// Everything outlives the set.
    struct Args {
        const MachineSpec* spec = nullptr;
        const MachineEvents* events = nullptr;
        BackEnds* back_ends = nullptr;
        std::shared_ptr<memory::GuestMemory> memory;
        bus::PciBus* pci = nullptr;
        bus::AddressSpace* addresses = nullptr;
        bus::MsiRouter* msi = nullptr;
        bus::DoorbellRegistrar* doorbells = nullptr;
    };

    [[nodiscard]] static Result<std::unique_ptr<DeviceSet>> create(const Args& args);
    /// Takes its sections out of `state`.
    [[nodiscard]] static Result<std::unique_ptr<DeviceSet>> restore(const Args& args,
                                                                    state::SavedState& state);
    DeviceSet(const DeviceSet&) = delete;
    DeviceSet& operator=(const DeviceSet&) = delete;
    ~DeviceSet();

    void wake();
    void quiesce();
    /// timeout naming the device that has not come to rest by then; all of them work on in that
    /// case.
    [[nodiscard]] Status quiesce_until(std::chrono::steady_clock::time_point deadline);
    /// What is saved of it, in order.
    [[nodiscard]] std::vector<const state::StateUnit*> units() const;

    /// Any thread.
    [[nodiscard]] std::size_t console_input(std::span<const std::byte> bytes);
    /// By resource name ("disk0").
    [[nodiscard]] Status refresh_disk(std::string_view name);
    /// Of a disk, as the guest knows it.
    [[nodiscard]] std::uint64_t disk_bytes(std::size_t disk) const;
    [[nodiscard]] Status set_balloon(std::uint64_t bytes);
    /// Drivers tell the network where they are now.
    void announce();
    /// JSON object with counters. Any thread.
    [[nodiscard]] std::string statistics_json() const;

  private:
    explicit DeviceSet(const Args& args);
    /// Null section: a new device.
    [[nodiscard]] Result<std::unique_ptr<virtio::VirtioDevice>>
    make_device(const PlannedDevice& planned, const state::Section* section);
    [[nodiscard]] Result<std::unique_ptr<virtio::VirtioDevice>>
    make_disk(std::size_t index, const state::Section* section);
    [[nodiscard]] Result<std::unique_ptr<virtio::VirtioDevice>>
    make_net(std::size_t index, const state::Section* section);
    [[nodiscard]] Result<std::unique_ptr<virtio::VirtioDevice>>
    make_console(const state::Section* section);
    [[nodiscard]] Result<std::unique_ptr<virtio::VirtioDevice>>
    make_balloon(const state::Section* section);
    [[nodiscard]] Status add(const PlannedDevice& planned, state::SavedState* state);

    Args args_;
    std::vector<std::unique_ptr<virtio::PciTransport>> transports_;
    std::vector<std::string> names_; ///< One per transport, for people.
    // Owned by their transports.
    std::vector<virtio::BlkDevice*> disks_;
    std::vector<virtio::NetDevice*> nets_;
    virtio::ConsoleDevice* console_ = nullptr;
    virtio::BalloonDevice* balloon_ = nullptr;
};

} // namespace godwit::machine
