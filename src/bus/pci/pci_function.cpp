#include "bus/pci/pci_function.h"

#include "base/log.h"
#include "bus/little_endian.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace godwit::bus {

namespace {

// Type 0 header (PCI Local Bus 3.0, figure 6-1).
constexpr std::uint32_t vendor_offset = 0x00;
constexpr std::uint32_t device_offset = 0x02;
constexpr std::uint32_t command_offset = 0x04;
constexpr std::uint32_t status_offset = 0x06;
constexpr std::uint32_t revision_offset = 0x08;
constexpr std::uint32_t cache_line_offset = 0x0c;
constexpr std::uint32_t bar_offset = 0x10;
constexpr std::uint32_t subsystem_vendor_offset = 0x2c;
constexpr std::uint32_t subsystem_offset = 0x2e;
constexpr std::uint32_t capability_pointer_offset = 0x34;
constexpr std::uint32_t interrupt_line_offset = 0x3c;
constexpr std::uint32_t standard_space_bytes = 0x100;

constexpr std::uint16_t command_memory = 0x0002;
/// Memory space, bus master, parity response, SERR, interrupt disable.
constexpr std::uint16_t command_writable = 0x0546;
constexpr std::uint16_t status_capabilities = 0x0010;

// MSI-X capability (section 6.8.2), offsets from its start.
constexpr std::uint32_t msix_control_offset = 2;
constexpr std::uint16_t msix_function_mask = 0x4000;
constexpr std::uint16_t msix_enable = 0x8000;

constexpr std::uint32_t bar_at(std::size_t index) {
    return bar_offset + 4 * static_cast<std::uint32_t>(index);
}

} // namespace

template <typename T>
T PciFunction::field(std::uint32_t offset) const {
    return static_cast<T>(load_little(std::span(bytes_).subspan(offset, sizeof(T))));
}

template <typename T>
void PciFunction::set_field(std::uint32_t offset, T value) {
    store_little(std::span(bytes_).subspan(offset, sizeof(T)), value);
}

PciFunction::PciFunction(const PciIdentity& identity, AddressSpace& space)
    : space_(space), bytes_(config_space_bytes), writable_(config_space_bytes) {
    set_field(vendor_offset, identity.vendor);
    set_field(device_offset, identity.device);
    set_field(revision_offset, (identity.class_code << 8U) | identity.revision);
    set_field(subsystem_vendor_offset, identity.subsystem_vendor);
    set_field(subsystem_offset, identity.subsystem);
    // Decoding is on from the start: a guest without firmware finds the BARs in place.
    set_field(command_offset, command_memory);
    store_little(std::span(writable_).subspan(command_offset, 2), command_writable);
    writable_[cache_line_offset] = std::byte{0xff};
    writable_[interrupt_line_offset] = std::byte{0xff};
}

PciFunction::~PciFunction() {
    bar_moved_ = nullptr;
    for (std::size_t i = 0; i < bars_count; ++i) {
        move_bar(i, std::nullopt);
    }
}

Status PciFunction::add_bar(std::size_t index, std::uint32_t bytes, Gpa start, BusDevice& device) {
    if (index >= bars_count || bars_[index].bytes != 0 || bytes < 16 ||
        !std::has_single_bit(bytes) || start.value % bytes != 0 ||
        start.value + bytes > (1ULL << 32U)) {
        return Error(ErrorCode::invalid_argument,
                     "BAR " + std::to_string(index) + " of " + std::to_string(bytes) +
                         " bytes at " + std::to_string(start.value));
    }
    bars_[index] = {.bytes = bytes, .device = &device, .decoded = {}};
    set_field(bar_at(index), static_cast<std::uint32_t>(start.value));
    store_little(std::span(writable_).subspan(bar_at(index), 4), ~(bytes - 1));
    return ok();
}

Result<std::uint32_t> PciFunction::add_capability(std::uint8_t id,
                                                  std::span<const std::byte> body,
                                                  std::span<const std::byte> writable) {
    const std::uint32_t at = capabilities_end_;
    if (body.size() + 2 > standard_space_bytes - at) {
        return Error(ErrorCode::resource_exhausted, "no room for another PCI capability");
    }
    bytes_[at] = std::byte{id};
    std::ranges::copy(body, bytes_.begin() + at + 2);
    std::ranges::copy(writable.first(std::min(writable.size(), body.size())),
                      writable_.begin() + at + 2);
    const std::uint32_t link =
        last_capability_ == 0 ? capability_pointer_offset : last_capability_ + 1;
    bytes_[link] = static_cast<std::byte>(at);
    set_field(status_offset, status_capabilities);
    last_capability_ = at;
    capabilities_end_ = static_cast<std::uint32_t>(round_up(at + 2 + body.size(), 4));
    return at;
}

Status PciFunction::add_msix(std::unique_ptr<Msix> msix,
                             std::size_t bar,
                             std::uint32_t table_offset,
                             std::uint32_t pending_offset) {
    std::array<std::byte, 10> body{};
    const auto selector = static_cast<std::uint32_t>(bar);
    store_little(std::span(body).subspan(0, 2), msix->size() - 1);
    store_little(std::span(body).subspan(2, 4), table_offset | selector);
    store_little(std::span(body).subspan(6, 4), pending_offset | selector);
    std::array<std::byte, 10> writable{};
    store_little(std::span(writable).subspan(0, 2), msix_enable | msix_function_mask);
    msix_capability_ = GODWIT_TRY(add_capability(capability_msix, body, writable));
    msix_ = std::move(msix);
    return ok();
}

Status PciFunction::load(const PciFunctionState& state) {
    if ((state.command & ~command_writable) != 0) {
        return Error(ErrorCode::corrupt,
                     "saved PCI command register " + std::to_string(state.command));
    }
    for (std::size_t i = 0; i < bars_count; ++i) {
        const std::uint32_t bytes = bars_[i].bytes;
        if (bytes == 0 ? state.bars[i] != 0 : state.bars[i] % bytes != 0) {
            return Error(ErrorCode::corrupt,
                         "saved PCI BAR " + std::to_string(i) + " at " +
                             std::to_string(state.bars[i]));
        }
    }
    if (state.msix.has_value() != (msix_ != nullptr)) {
        return Error(ErrorCode::corrupt, "saved PCI function differs in having MSI-X");
    }
    if (msix_ != nullptr) {
        GODWIT_TRY(msix_->load(*state.msix));
        const auto control = field<std::uint16_t>(msix_capability_ + msix_control_offset);
        const int bits = (state.msix->enabled ? msix_enable : 0) |
                         (state.msix->function_masked ? msix_function_mask : 0);
        set_field(msix_capability_ + msix_control_offset,
                  static_cast<std::uint16_t>(control | bits));
    }
    set_field(command_offset, state.command);
    bytes_[cache_line_offset] = std::byte{state.cache_line_size};
    bytes_[interrupt_line_offset] = std::byte{state.interrupt_line};
    for (std::size_t i = 0; i < bars_count; ++i) {
        set_field(bar_at(i), state.bars[i]);
    }
    return ok();
}

PciFunctionState PciFunction::save() const {
    PciFunctionState state{
        .command = field<std::uint16_t>(command_offset),
        .cache_line_size = std::to_integer<std::uint8_t>(bytes_[cache_line_offset]),
        .interrupt_line = std::to_integer<std::uint8_t>(bytes_[interrupt_line_offset]),
        .bars = {},
        .msix = {}};
    for (std::size_t i = 0; i < bars_count; ++i) {
        state.bars[i] = field<std::uint32_t>(bar_at(i));
    }
    if (msix_ != nullptr) {
        state.msix = msix_->save();
    }
    return state;
}

void PciFunction::connect() {
    connected_ = true;
    update_bars();
}

void PciFunction::read_config(std::uint32_t offset, std::span<std::byte> out) const {
    copy_from(bytes_, offset, out);
}

void PciFunction::write_config(std::uint32_t offset, std::span<const std::byte> data) {
    for (std::size_t i = 0; i < data.size() && offset + i < bytes_.size(); ++i) {
        const std::byte mask = writable_[offset + i];
        bytes_[offset + i] = (bytes_[offset + i] & ~mask) | (data[i] & mask);
    }
    update_bars();
    update_msix();
}

void PciFunction::update_bars() {
    if (!connected_) {
        return;
    }
    const bool decoding = (field<std::uint16_t>(command_offset) & command_memory) != 0;
    for (std::size_t i = 0; i < bars_count; ++i) {
        const auto start = field<std::uint32_t>(bar_at(i));
        // Address 0 is a BAR nobody has placed; the highest one is the guest asking for the size.
        const bool placed = start != 0 && start != ~(bars_[i].bytes - 1);
        move_bar(i, decoding && placed ? std::optional(start) : std::nullopt);
    }
}

void PciFunction::move_bar(std::size_t index, std::optional<std::uint32_t> wanted) {
    Bar& bar = bars_[index];
    if (bar.bytes == 0 || bar.decoded == wanted) {
        return;
    }
    if (bar.decoded.has_value()) {
        if (bar_moved_) {
            bar_moved_(index, std::nullopt);
        }
        space_.remove(*bar.decoded);
        bar.decoded.reset();
    }
    if (!wanted.has_value()) {
        return;
    }
    const Status added = space_.add(*wanted, bar.bytes, *bar.device);
    if (!added.has_value()) {
        // The guest put it on top of something else; it may move it again at will.
        if (std::has_single_bit(++refused_moves_)) {
            log::warn("pci_bar_refused",
                      {{"bar", index},
                       {"address", *wanted},
                       {"reason", added.error().to_string()},
                       {"times", refused_moves_}});
        }
        return;
    }
    bar.decoded = wanted;
    if (bar_moved_) {
        bar_moved_(index, Gpa{*wanted});
    }
}

void PciFunction::update_msix() {
    if (msix_ == nullptr) {
        return;
    }
    const auto control = field<std::uint16_t>(msix_capability_ + msix_control_offset);
    msix_->set_control((control & msix_enable) != 0, (control & msix_function_mask) != 0);
}

std::optional<Gpa> PciFunction::decoded_at(std::size_t bar) const {
    const auto& decoded = bars_[bar].decoded;
    return decoded.has_value() ? std::optional(Gpa{*decoded}) : std::nullopt;
}

} // namespace godwit::bus
