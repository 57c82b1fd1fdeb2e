#pragma once

/// The saved form of a PciTransport (section "virtio-pci"). decode() checks that every field is
/// there and fits its type; the transport checks what it means.

#include "base/result.h"
#include "bus/pci/pci_function.h"
#include "state/state_unit.h"
#include "virtio/common_config.h"

#include <cstdint>

namespace godwit::virtio {

inline constexpr state::SectionType transport_section{"virtio-pci", 1};

struct PciTransportState {
    std::uint16_t device_type = 0;
    CommonConfigState config;
    std::uint8_t isr = 0;
    /// The PCI configuration access capability (virtio 1.2, section 4.1.4.9).
    std::uint8_t window_bar = 0;
    std::uint32_t window_offset = 0;
    std::uint32_t window_length = 0;
    bus::PciFunctionState function;
};

[[nodiscard]] state::Section encode(const PciTransportState& transport, std::uint8_t slot);
[[nodiscard]] Result<PciTransportState> decode(const state::Section& section);

} // namespace godwit::virtio
