#include "bus/pci/pci_state.h"

#include "state/pci.pb.h"

namespace godwit::bus {

namespace {

Error bad(const char* what) {
    return Error(ErrorCode::corrupt, std::string("saved PCI function: ") + what);
}

Result<MsixState> decode_msix(const state::MsixState& saved) {
    if (!saved.has_enabled() || !saved.has_function_masked()) {
        return bad("MSI-X control is missing");
    }
    if (saved.entries_size() > static_cast<int>(msix_vectors_max)) {
        return bad("too many interrupt vectors");
    }
    MsixState msix{
        .enabled = saved.enabled(), .function_masked = saved.function_masked(), .entries = {}};
    for (const state::MsixEntryState& entry : saved.entries()) {
        if (!entry.has_address() || !entry.has_data() || !entry.has_masked() ||
            !entry.has_pending()) {
            return bad("an interrupt vector is incomplete");
        }
        msix.entries.push_back({.message = {.address = entry.address(), .data = entry.data()},
                                .masked = entry.masked(),
                                .pending = entry.pending()});
    }
    return msix;
}

} // namespace

void encode(const PciFunctionState& function, state::PciFunctionState& out) {
    out.set_command(function.command);
    out.set_cache_line_size(function.cache_line_size);
    out.set_interrupt_line(function.interrupt_line);
    for (const std::uint32_t bar : function.bars) {
        out.add_bars(bar);
    }
    if (!function.msix.has_value()) {
        return;
    }
    state::MsixState& msix = *out.mutable_msix();
    msix.set_enabled(function.msix->enabled);
    msix.set_function_masked(function.msix->function_masked);
    for (const MsixEntry& entry : function.msix->entries) {
        state::MsixEntryState& saved = *msix.add_entries();
        saved.set_address(entry.message.address);
        saved.set_data(entry.message.data);
        saved.set_masked(entry.masked);
        saved.set_pending(entry.pending);
    }
}

Result<PciFunctionState> decode(const state::PciFunctionState& saved) {
    if (!saved.has_command() || !saved.has_cache_line_size() || !saved.has_interrupt_line()) {
        return bad("a register is missing");
    }
    if (saved.command() > 0xffff || saved.cache_line_size() > 0xff ||
        saved.interrupt_line() > 0xff) {
        return bad("a register is out of range");
    }
    if (saved.bars_size() != static_cast<int>(bars_count)) {
        return bad("it does not have six BARs");
    }
    PciFunctionState function{.command = static_cast<std::uint16_t>(saved.command()),
                              .cache_line_size = static_cast<std::uint8_t>(saved.cache_line_size()),
                              .interrupt_line = static_cast<std::uint8_t>(saved.interrupt_line()),
                              .bars = {},
                              .msix = {}};
    for (std::size_t i = 0; i < bars_count; ++i) {
        function.bars[i] = saved.bars(static_cast<int>(i));
    }
    if (saved.has_msix()) {
        function.msix = GODWIT_TRY(decode_msix(saved.msix()));
    }
    return function;
}

} // namespace godwit::bus
