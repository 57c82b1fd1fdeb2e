#include "virtio/balloon/balloon_state.h"

#include "state/section_codec.h"
#include "state/virtio_balloon.pb.h"

namespace godwit::virtio {

state::Section save_balloon(const BalloonState& state, std::uint32_t instance) {
    state::VirtioBalloon message;
    message.set_target_pages(state.target_pages);
    message.set_actual_pages(state.actual_pages);
    return state::encode_section(balloon_section, instance, message);
}

Result<BalloonState> load_balloon(const state::Section& section, std::uint64_t ram_pages) {
    const auto bad = [&](const std::string& what) { return state::bad_section(section, what); };
    const auto message =
        GODWIT_TRY(state::decode_section<state::VirtioBalloon>(balloon_section, section));
    if (!message.has_target_pages() || !message.has_actual_pages()) {
        return bad("cut short");
    }
    if (message.target_pages() > ram_pages) {
        return bad("a target of " + std::to_string(message.target_pages()) +
                   " pages, more than the machine has");
    }
    return BalloonState{.target_pages = message.target_pages(),
                        .actual_pages = message.actual_pages()};
}

} // namespace godwit::virtio
