#pragma once

/// What a guest wrote into a PCI function, to and from its saved message. Reading checks that every
/// field is there and in range; whether it fits the function is for PciFunction::load.

#include "base/result.h"
#include "bus/pci/pci_function.h"

namespace godwit::state {
class PciFunctionState; // src/state/pci.proto
}

namespace godwit::bus {

void encode(const PciFunctionState& function, state::PciFunctionState& out);
[[nodiscard]] Result<PciFunctionState> decode(const state::PciFunctionState& saved);

} // namespace godwit::bus
