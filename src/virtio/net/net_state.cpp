#include "virtio/net/net_state.h"

#include "state/section_codec.h"
#include "state/virtio_net.pb.h"
#include "virtio/net/net_spec.h"

#include <algorithm>

namespace godwit::virtio {

state::Section save_net(const NetState& state, std::uint32_t instance) {
    state::VirtioNet message;
    message.set_mac(std::string(state.identity.mac.begin(), state.identity.mac.end()));
    if (state.identity.mtu.has_value()) {
        message.set_mtu(*state.identity.mtu);
    }
    message.set_queue_pairs(state.identity.queue_pairs);
    message.set_active_pairs(state.active_pairs);
    message.set_announce_pending(state.announce_pending);
    for (std::size_t pair = 0; pair < state.held.size(); ++pair) {
        if (!state.held[pair].empty()) {
            auto* held = message.add_held();
            held->set_pair(static_cast<std::uint32_t>(pair));
            held->set_packet(state.held[pair]);
        }
    }
    return state::encode_section(net_section, instance, message);
}

namespace {

using state::bad_section;

Result<NetIdentity> identity_of(const state::VirtioNet& message, const state::Section& section) {
    NetIdentity identity;
    if (message.mac().size() != identity.mac.size()) {
        return bad_section(section,
                           "a MAC address of " + std::to_string(message.mac().size()) + " bytes");
    }
    std::ranges::copy(message.mac(), identity.mac.begin());
    if (message.queue_pairs() < 1 || message.queue_pairs() > net_queue_pairs_max) {
        return bad_section(section, std::to_string(message.queue_pairs()) + " queue pairs");
    }
    identity.queue_pairs = static_cast<std::uint16_t>(message.queue_pairs());
    if (message.has_mtu()) {
        if (message.mtu() > UINT16_MAX) {
            return bad_section(section, "an MTU of " + std::to_string(message.mtu()));
        }
        identity.mtu = static_cast<std::uint16_t>(message.mtu());
    }
    return identity;
}

Result<std::vector<std::string>>
held_of(const state::VirtioNet& message, const state::Section& section, std::uint16_t pairs) {
    std::vector<std::string> held(pairs);
    for (const auto& one : message.held()) {
        if (one.pair() >= pairs || !held[one.pair()].empty()) {
            return bad_section(section,
                               "a held packet of queue pair " + std::to_string(one.pair()));
        }
        if (one.packet().size() < net_header_bytes || one.packet().size() >= net_packet_bytes_max) {
            return bad_section(
                section, "a held packet of " + std::to_string(one.packet().size()) + " bytes");
        }
        held[one.pair()] = one.packet();
    }
    return held;
}

} // namespace

Result<NetState> load_net(const state::Section& section, const NetIdentity& expected) {
    const auto message = GODWIT_TRY(state::decode_section<state::VirtioNet>(net_section, section));
    NetState state;
    state.identity = GODWIT_TRY(identity_of(message, section));
    if (state.identity != expected) {
        return Error(
            ErrorCode::invalid_argument,
            "saved state of " + section.id.to_string() +
                " has another MAC address, MTU or number of queue pairs than this machine");
    }
    if (message.active_pairs() < 1 || message.active_pairs() > state.identity.queue_pairs) {
        return bad_section(section, std::to_string(message.active_pairs()) + " active queue pairs");
    }
    state.active_pairs = static_cast<std::uint16_t>(message.active_pairs());
    if (!message.has_announce_pending()) {
        return bad_section(section, "cut short");
    }
    state.announce_pending = message.announce_pending();
    state.held = GODWIT_TRY(held_of(message, section, state.identity.queue_pairs));
    return state;
}

} // namespace godwit::virtio
