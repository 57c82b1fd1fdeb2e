#include "bus/pci/pci_bus.h"

#include "bus/little_endian.h"
#include "bus/pci/pci_state.h"
#include "state/pci.pb.h"
#include "state/section_codec.h"

#include <algorithm>
#include <bit>

namespace godwit::bus {

namespace {

/// Red Hat's generic host bridge: no driver claims it, every system accepts it.
constexpr PciIdentity host_bridge_identity{.vendor = 0x1b36,
                                           .device = 0x0008,
                                           .revision = 0,
                                           .class_code = 0x06'0000,
                                           .subsystem_vendor = 0,
                                           .subsystem = 0};

constexpr std::uint32_t config_enable = 0x8000'0000;
/// Enable, bus, device, function, double word.
constexpr std::uint32_t config_address_mask = 0x80ff'fffc;

} // namespace

PciBus::HostBridge::HostBridge(AddressSpace& space) : function_(host_bridge_identity, space) {}

void PciBus::HostBridge::read_config(std::uint32_t offset, std::span<std::byte> out) {
    const std::lock_guard lock(mutex_);
    function_.read_config(offset, out);
}

void PciBus::HostBridge::write_config(std::uint32_t offset, std::span<const std::byte> data) {
    const std::lock_guard lock(mutex_);
    function_.write_config(offset, data);
}

PciBus::PciBus(AddressSpace& space) : bridge_(space), ecam_(*this), ports_(*this) {
    slots_[0] = &bridge_;
}

Result<std::unique_ptr<PciBus>> PciBus::create(AddressSpace& space) {
    return std::unique_ptr<PciBus>(new PciBus(space));
}

Result<std::unique_ptr<PciBus>> PciBus::restore(AddressSpace& space, const state::Section& saved) {
    const auto message = GODWIT_TRY(state::decode_section<state::PciBusState>(section, saved));
    if (!message.has_config_address() || !message.has_host_bridge()) {
        return state::bad_section(saved, "a field is missing");
    }
    auto bus = GODWIT_TRY(create(space));
    GODWIT_TRY(bus->bridge_.function_.load(GODWIT_TRY(decode(message.host_bridge()))));
    bus->ports_.address_ = message.config_address() & config_address_mask;
    return bus;
}

Result<state::Saved> PciBus::save() const {
    state::PciBusState saved;
    saved.set_config_address(ports_.address_);
    {
        const std::lock_guard lock(bridge_.mutex_);
        encode(bridge_.function_.save(), *saved.mutable_host_bridge());
    }
    return state::encode_section(section, 0, saved);
}

Status PciBus::add(std::uint8_t slot, ConfigTarget& function) {
    if (slot >= pci_slots) {
        return Error(ErrorCode::resource_exhausted,
                     "PCI slot " + std::to_string(slot) + ": bus 0 has 32 slots");
    }
    if (slots_[slot] != nullptr) {
        return Error(ErrorCode::already_exists, "PCI slot " + std::to_string(slot) + " is taken");
    }
    slots_[slot] = &function;
    return ok();
}

void PciBus::remove(std::uint8_t slot) noexcept {
    if (slot > 0 && slot < pci_slots) {
        slots_[slot] = nullptr;
    }
}

Result<Gpa> PciBus::take_bar_address(std::uint64_t bytes) {
    const std::uint64_t room = bar_window_end.value - bar_window_start.value;
    if (!std::has_single_bit(bytes) || bytes > room) {
        return Error(ErrorCode::invalid_argument,
                     "a PCI BAR of " + std::to_string(bytes) + " bytes");
    }
    const std::uint64_t start = round_up(next_bar_address_, bytes);
    if (start + bytes > bar_window_end.value) {
        return Error(ErrorCode::resource_exhausted, "no room left for PCI BARs below 4 GiB");
    }
    next_bar_address_ = start + bytes;
    return Gpa{start};
}

ConfigTarget* PciBus::target_of(std::uint64_t address, std::size_t bytes) const {
    const std::uint64_t bus = address >> 20U;
    const std::uint64_t slot = (address >> 15U) & 31U;
    const std::uint64_t function = (address >> 12U) & 7U;
    const std::uint64_t reg = address & (config_space_bytes - 1);
    if (bus != 0 || function != 0 || reg + bytes > config_space_bytes) {
        return nullptr;
    }
    return slots_[slot];
}

void PciBus::read_config(std::uint64_t address, std::span<std::byte> out) const {
    ConfigTarget* target = target_of(address, out.size());
    if (target == nullptr) {
        std::ranges::fill(out, std::byte{0xff});
        return;
    }
    target->read_config(static_cast<std::uint32_t>(address & (config_space_bytes - 1)), out);
}

void PciBus::write_config(std::uint64_t address, std::span<const std::byte> data) const {
    ConfigTarget* target = target_of(address, data.size());
    if (target != nullptr) {
        target->write_config(static_cast<std::uint32_t>(address & (config_space_bytes - 1)), data);
    }
}

void PciBus::Ecam::read(std::uint64_t offset, std::span<std::byte> out) {
    bus_.read_config(offset, out);
}

void PciBus::Ecam::write(std::uint64_t offset, std::span<const std::byte> data) {
    bus_.write_config(offset, data);
}

namespace {

/// CF8 (bus 23:16, device 15:11, function 10:8, register 7:2) as an ECAM address.
std::uint64_t ecam_address(std::uint32_t config_address, std::uint64_t byte) {
    const std::uint64_t bus_device_function = (config_address >> 8U) & 0xffffU;
    return (bus_device_function << 12U) + (config_address & 0xfcU) + byte;
}

} // namespace

void PciBus::Ports::read(std::uint64_t offset, std::span<std::byte> out) {
    std::ranges::fill(out, std::byte{0xff});
    if (offset == 0 && out.size() == 4) {
        store_little(out, address_);
        return;
    }
    const std::uint32_t address = address_;
    if (offset >= 4 && offset + out.size() <= 8 && (address & config_enable) != 0) {
        bus_.read_config(ecam_address(address, offset - 4), out);
    }
}

void PciBus::Ports::write(std::uint64_t offset, std::span<const std::byte> data) {
    if (offset == 0 && data.size() == 4) {
        address_ = static_cast<std::uint32_t>(load_little(data)) & config_address_mask;
        return;
    }
    const std::uint32_t address = address_;
    if (offset >= 4 && offset + data.size() <= 8 && (address & config_enable) != 0) {
        bus_.write_config(ecam_address(address, offset - 4), data);
    }
}

} // namespace godwit::bus
