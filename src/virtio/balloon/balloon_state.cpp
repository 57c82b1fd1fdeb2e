#include "virtio/balloon/balloon_state.h"

#include "state/virtio_balloon.pb.h"

namespace godwit::virtio {

namespace {
constexpr std::uint32_t section_version = 1;
}

state::Section save_balloon(const BalloonState& state, std::uint32_t instance) {
    state::VirtioBalloon message;
    message.set_target_pages(state.target_pages);
    message.set_actual_pages(state.actual_pages);
    return {.id = {.name = "virtio-balloon", .instance = instance},
            .version = section_version,
            .payload = message.SerializeAsString()};
}

Result<BalloonState> load_balloon(const state::Section& section, std::uint64_t ram_pages) {
    const auto bad = [&](const std::string& what) {
        return Error(ErrorCode::corrupt, "saved state of " + section.id.to_string() + ": " + what);
    };
    state::VirtioBalloon message;
    if (section.version != section_version || !message.ParseFromString(section.payload)) {
        return bad("not a version " + std::to_string(section_version) + " message");
    }
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
