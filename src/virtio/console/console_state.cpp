#include "virtio/console/console_state.h"

#include "state/section_codec.h"
#include "state/virtio_console.pb.h"

namespace godwit::virtio {

state::Section save_console(const ConsoleState& state, std::uint32_t instance) {
    state::VirtioConsole message;
    message.set_pending_input(state.pending_input);
    message.set_cols(state.size.cols);
    message.set_rows(state.size.rows);
    return state::encode_section(console_section, instance, message);
}

Result<ConsoleState> load_console(const state::Section& section) {
    const auto bad = [&](const std::string& what) { return state::bad_section(section, what); };
    const auto message =
        GODWIT_TRY(state::decode_section<state::VirtioConsole>(console_section, section));
    if (!message.has_pending_input() || !message.has_cols() || !message.has_rows()) {
        return bad("cut short");
    }
    if (message.cols() > UINT16_MAX || message.rows() > UINT16_MAX) {
        return bad("a size of " + std::to_string(message.cols()) + " x " +
                   std::to_string(message.rows()));
    }
    if (message.pending_input().size() > console_pending_bytes_max) {
        return bad(std::to_string(message.pending_input().size()) + " bytes of pending input");
    }
    return ConsoleState{.size = {.cols = static_cast<std::uint16_t>(message.cols()),
                                 .rows = static_cast<std::uint16_t>(message.rows())},
                        .pending_input = message.pending_input()};
}

} // namespace godwit::virtio
