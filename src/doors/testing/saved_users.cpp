#include "doors/testing/saved_users.h"

#include "sys/unix_socket.h"

#include <array>

namespace godwit::doors::testing {

namespace {

// All of these are to be had, or there is nothing to test.
sys::Fd memory(std::uint64_t bytes) {
    return GODWIT_MUST(sys::create_memfd("saved-users", bytes));
}

sys::Fd event() {
    return GODWIT_MUST(GODWIT_MUST(sys::EventFd::create()).fd().duplicate());
}

sys::Fd socket() {
    return GODWIT_MUST(sys::MessageSocket::pair()).first.fd().duplicate().value_or(sys::Fd());
}

std::vector<std::byte> pattern(std::size_t bytes) {
    std::vector<std::byte> made(bytes);
    for (std::size_t i = 0; i < bytes; ++i) {
        made[i] = static_cast<std::byte>(i * 7);
    }
    return made;
}

vhost::SavedConversation front_end() {
    vhost::SavedConversation saved;
    saved.socket = socket();
    vhost::SavedSession& session = saved.session;
    session.features = virtio::feature_version_1 | vhost::feature_protocol_features;
    session.protocol_features = vhost::protocol_feature::inflight;
    session.backend_channel = socket();
    for (const std::uint64_t at : {std::uint64_t{0}, saved_region_bytes}) {
        session.regions.push_back({.region = {.guest_address = at,
                                              .bytes = saved_region_bytes,
                                              .user_address = (1ULL << 40U) + at,
                                              .mapping_offset = 0},
                                   .object = memory(saved_region_bytes)});
    }
    const std::uint64_t user = 1ULL << 40U;
    session.rings.push_back({.size = 64,
                             .next_available = 65535,
                             .addresses = vhost::RingAddresses{.index = 0,
                                                               .flags = 0,
                                                               .descriptors = user,
                                                               .used = user + 0x2000,
                                                               .available = user + 0x4000,
                                                               .log = 0},
                             .enabled = true,
                             .kick = event(),
                             .call = event(),
                             .error = event()});
    session.rings.push_back({});
    session.inflight = vhost::InflightDescription{.bytes = virtio::InflightRing::bytes_for(64) * 2,
                                                  .offset = 0,
                                                  .queues = 2,
                                                  .queue_size = 64};
    session.inflight_object = memory(session.inflight->bytes);
    return saved;
}

} // namespace

exchange::Users saved_users() {
    exchange::Users users;
    users.front_end = front_end();
    users.clients.push_back({.socket = socket(),
                             .negotiation = {.exported = {.name = "disk", .bytes = 1U << 20U},
                                             .phase = nbd::Negotiation::Phase::options,
                                             .options = 2,
                                             .structured = true},
                             .reading = true,
                             .input = pattern(9),
                             .output = {}});
    users.clients.push_back({.socket = socket(),
                             .negotiation = {.exported = {.name = "disk", .bytes = 1U << 20U},
                                             .phase = nbd::Negotiation::Phase::transmission,
                                             .options = 3},
                             .reading = false,
                             .input = {},
                             .output = pattern(5000)});
    return users;
}

sys::FdManifest descriptors_for(exchange::Users users) {
    state::SavedState state;
    sys::FdManifest descriptors;
    discard(exchange::encode(std::move(users), state, descriptors), "these are within all limits");
    return descriptors;
}

} // namespace godwit::doors::testing
