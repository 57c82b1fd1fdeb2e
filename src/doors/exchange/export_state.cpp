#include "doors/exchange/export_state.h"

#include "doors/nbd/server.h"
#include "state/export.pb.h"
#include "state/section_codec.h"

#include <limits>

namespace godwit::doors::exchange {

namespace {

constexpr const char* stream_name = "bytes";

std::string numbered(const char* what, std::size_t number) {
    return std::string(what) + "-" + std::to_string(number);
}

/// Descriptors that need not be there.
Status give(sys::FdManifest& descriptors, std::string name, sys::Fd fd) {
    return fd.valid() ? descriptors.add(std::move(name), std::move(fd)) : ok();
}

Result<sys::Fd> take_if_there(sys::FdManifest& descriptors, const std::string& name) {
    return descriptors.has(name) ? descriptors.take(name) : sys::Fd();
}

template <typename Narrow>
Result<Narrow> narrow(std::uint64_t value, const char* what) {
    if (value > std::numeric_limits<Narrow>::max()) {
        return Error(ErrorCode::corrupt, std::string(what) + " is " + std::to_string(value));
    }
    return static_cast<Narrow>(value);
}

Status encode_front_end(vhost::SavedConversation front_end,
                        state::SavedState& state,
                        sys::FdManifest& descriptors) {
    vhost::SavedSession& session = front_end.session;
    state::ExportFrontEnd message;
    message.set_features(session.features);
    message.set_protocol_features(session.protocol_features);
    GODWIT_TRY(give(descriptors, "front-end", std::move(front_end.socket)));
    GODWIT_TRY(give(descriptors, "backend", std::move(session.backend_channel)));
    for (std::size_t i = 0; i < session.regions.size(); ++i) {
        const vhost::MemoryRegion& region = session.regions[i].region;
        state::ExportFrontEnd::Region& entry = *message.add_regions();
        entry.set_guest_address(region.guest_address);
        entry.set_bytes(region.bytes);
        entry.set_user_address(region.user_address);
        entry.set_mapping_offset(region.mapping_offset);
        GODWIT_TRY(give(descriptors, numbered("memory", i), std::move(session.regions[i].object)));
    }
    for (std::size_t i = 0; i < session.rings.size(); ++i) {
        vhost::Rings::Saved& ring = session.rings[i];
        state::ExportFrontEnd::Ring& entry = *message.add_rings();
        entry.set_size(ring.size);
        entry.set_next_available(ring.next_available);
        entry.set_enabled(ring.enabled);
        if (ring.addresses.has_value()) {
            state::ExportFrontEnd::Addresses& addresses = *entry.mutable_addresses();
            addresses.set_descriptors(ring.addresses->descriptors);
            addresses.set_used(ring.addresses->used);
            addresses.set_available(ring.addresses->available);
        }
        GODWIT_TRY(give(descriptors, numbered("kick", i), std::move(ring.kick)));
        GODWIT_TRY(give(descriptors, numbered("call", i), std::move(ring.call)));
        GODWIT_TRY(give(descriptors, numbered("error", i), std::move(ring.error)));
    }
    if (session.inflight.has_value()) {
        state::ExportFrontEnd::Inflight& entry = *message.mutable_inflight();
        entry.set_bytes(session.inflight->bytes);
        entry.set_offset(session.inflight->offset);
        entry.set_queues(session.inflight->queues);
        entry.set_queue_size(session.inflight->queue_size);
        GODWIT_TRY(give(descriptors, "inflight", std::move(session.inflight_object)));
    }
    return state.add(state::encode_section(front_end_section, 0, message));
}

Result<vhost::Rings::Saved> decode_ring(const state::ExportFrontEnd::Ring& entry,
                                        std::uint32_t index,
                                        sys::FdManifest& descriptors) {
    vhost::Rings::Saved ring;
    ring.size = GODWIT_TRY(narrow<std::uint16_t>(entry.size(), "a ring's size"));
    ring.next_available =
        GODWIT_TRY(narrow<std::uint16_t>(entry.next_available(), "a ring's index"));
    ring.enabled = entry.enabled();
    if (entry.has_addresses()) {
        ring.addresses = vhost::RingAddresses{.index = index,
                                              .flags = 0,
                                              .descriptors = entry.addresses().descriptors(),
                                              .used = entry.addresses().used(),
                                              .available = entry.addresses().available(),
                                              .log = 0};
    }
    ring.kick = GODWIT_TRY(take_if_there(descriptors, numbered("kick", index)));
    ring.call = GODWIT_TRY(take_if_there(descriptors, numbered("call", index)));
    ring.error = GODWIT_TRY(take_if_there(descriptors, numbered("error", index)));
    return ring;
}

Result<vhost::SavedConversation> decode_front_end(const state::Section& section,
                                                  sys::FdManifest& descriptors) {
    const auto message =
        GODWIT_TRY(state::decode_section<state::ExportFrontEnd>(front_end_section, section));
    if (message.rings_size() > virtio::blk_queues_max ||
        message.regions_size() > static_cast<int>(vhost::memory_slots_max)) {
        return state::bad_section(section, "too many rings or memory regions");
    }
    vhost::SavedConversation front_end;
    vhost::SavedSession& session = front_end.session;
    front_end.socket = GODWIT_TRY(descriptors.take("front-end"));
    session.features = message.features();
    session.protocol_features = message.protocol_features();
    session.backend_channel = GODWIT_TRY(take_if_there(descriptors, "backend"));
    for (const state::ExportFrontEnd::Region& entry : message.regions()) {
        const std::string name = numbered("memory", session.regions.size());
        session.regions.push_back({.region = {.guest_address = entry.guest_address(),
                                              .bytes = entry.bytes(),
                                              .user_address = entry.user_address(),
                                              .mapping_offset = entry.mapping_offset()},
                                   .object = GODWIT_TRY(descriptors.take(name))});
    }
    for (const state::ExportFrontEnd::Ring& entry : message.rings()) {
        const auto index = static_cast<std::uint32_t>(session.rings.size());
        session.rings.push_back(GODWIT_TRY(decode_ring(entry, index, descriptors)));
    }
    if (message.has_inflight()) {
        const state::ExportFrontEnd::Inflight& entry = message.inflight();
        session.inflight = vhost::InflightDescription{
            .bytes = entry.bytes(),
            .offset = entry.offset(),
            .queues = GODWIT_TRY(narrow<std::uint16_t>(entry.queues(), "in-flight queues")),
            .queue_size = GODWIT_TRY(narrow<std::uint16_t>(entry.queue_size(), "their size"))};
        session.inflight_object = GODWIT_TRY(descriptors.take("inflight"));
    }
    return front_end;
}

/// What clients have sent and not been sent, one after the other in memory that is passed along.
class StreamWriter {
  public:
    [[nodiscard]] Status add(std::span<const std::byte> bytes) {
        if (bytes.size() > stream_bytes_max - written_) {
            return Error(ErrorCode::resource_exhausted,
                         "NBD clients leave more than 1 GiB of answers unread");
        }
        if (!memory_.valid()) {
            memory_ = GODWIT_TRY(sys::create_memfd("godwit-clients", 0));
        }
        GODWIT_TRY(sys::pwrite_all(memory_, bytes, written_));
        written_ += bytes.size();
        return ok();
    }
    [[nodiscard]] sys::Fd take() && { return std::move(memory_); }

  private:
    sys::Fd memory_;
    std::uint64_t written_ = 0;
};

class StreamReader {
  public:
    explicit StreamReader(sys::Fd memory) : memory_(std::move(memory)) {}
    [[nodiscard]] Result<std::vector<std::byte>> take(std::uint64_t bytes, std::size_t limit) {
        if (bytes > limit || bytes > stream_bytes_max - read_) {
            return Error(ErrorCode::corrupt,
                         "a client with " + std::to_string(bytes) + " bytes under way");
        }
        std::vector<std::byte> part;
        if (bytes > 0) {
            // Before memory is taken for it.
            if (!memory_.valid() || GODWIT_TRY(sys::file_size(memory_)) < read_ + bytes) {
                return Error(ErrorCode::corrupt, "bytes of a client are missing");
            }
            part.resize(bytes);
            GODWIT_TRY(sys::pread_exact(memory_, part, read_));
        }
        read_ += bytes;
        return part;
    }

  private:
    sys::Fd memory_;
    std::uint64_t read_ = 0;
};

state::ExportClient::Phase phase_of(nbd::Negotiation::Phase phase) {
    switch (phase) {
    case nbd::Negotiation::Phase::client_flags:
        return state::ExportClient::CLIENT_FLAGS;
    case nbd::Negotiation::Phase::options:
        return state::ExportClient::OPTIONS;
    case nbd::Negotiation::Phase::transmission:
        return state::ExportClient::TRANSMISSION;
    case nbd::Negotiation::Phase::ended:
        break;
    }
    return state::ExportClient::ENDED;
}

Result<nbd::Negotiation::Phase> phase_in(const state::Section& section,
                                         const state::ExportClient& message) {
    switch (message.phase()) {
    case state::ExportClient::CLIENT_FLAGS:
        return nbd::Negotiation::Phase::client_flags;
    case state::ExportClient::OPTIONS:
        return nbd::Negotiation::Phase::options;
    case state::ExportClient::TRANSMISSION:
        return nbd::Negotiation::Phase::transmission;
    case state::ExportClient::ENDED:
        return nbd::Negotiation::Phase::ended;
    default:
        return state::bad_section(section, "an unknown phase");
    }
}

Status encode_client(nbd::SavedConnection client,
                     std::size_t number,
                     StreamWriter& stream,
                     state::SavedState& state,
                     sys::FdManifest& descriptors) {
    state::ExportClient message;
    const nbd::Negotiation::State& negotiation = client.negotiation;
    message.set_phase(phase_of(negotiation.phase));
    message.set_options(negotiation.options);
    message.set_without_zeroes(negotiation.without_zeroes);
    message.set_structured(negotiation.structured);
    message.set_allocation(negotiation.allocation);
    message.set_name(negotiation.exported.name);
    message.set_bytes(negotiation.exported.bytes);
    message.set_flags(negotiation.exported.flags);
    message.set_block_bytes_min(negotiation.exported.block_bytes_min);
    message.set_reading(client.reading);
    message.set_input_bytes(client.input.size());
    message.set_output_bytes(client.output.size());
    GODWIT_TRY(stream.add(client.input));
    GODWIT_TRY(stream.add(client.output));
    GODWIT_TRY(descriptors.add(numbered("client", number), std::move(client.socket)));
    return state.add(
        state::encode_section(client_section, static_cast<std::uint32_t>(number), message));
}

Result<nbd::SavedConnection>
decode_client(const state::Section& section, StreamReader& stream, sys::FdManifest& descriptors) {
    const auto message =
        GODWIT_TRY(state::decode_section<state::ExportClient>(client_section, section));
    if (message.name().size() > nbd::name_bytes_max || message.options() > nbd::options_max) {
        return state::bad_section(section, "a name or options beyond their limits");
    }
    nbd::SavedConnection client;
    client.negotiation = {
        .exported = {.name = message.name(),
                     .bytes = message.bytes(),
                     .flags = GODWIT_TRY(narrow<std::uint16_t>(message.flags(), "flags")),
                     .block_bytes_min = message.block_bytes_min()},
        .phase = GODWIT_TRY(phase_in(section, message)),
        .options = message.options(),
        .without_zeroes = message.without_zeroes(),
        .structured = message.structured(),
        .allocation = message.allocation()};
    client.reading = message.reading();
    client.input = GODWIT_TRY(stream.take(message.input_bytes(), nbd::saved_input_bytes_max));
    client.output = GODWIT_TRY(stream.take(message.output_bytes(), nbd::saved_output_bytes_max));
    client.socket = GODWIT_TRY(descriptors.take(numbered("client", section.id.instance)));
    // Both ends may hold the same socket: nobody shall wait in it.
    GODWIT_TRY(sys::set_nonblocking(client.socket));
    return client;
}

} // namespace

state::Section encode(const Offered& offered) {
    const ServeOptions& options = offered.options;
    state::Export message;
    message.set_image(options.disk.path);
    message.set_note(options.disk.place);
    message.set_read_only(options.disk.read_only);
    message.set_direct(options.disk.direct);
    message.set_profile(options.disk.profile);
    message.set_place(offered.place.path);
    message.set_place_direct(offered.place.direct);
    message.set_bytes(offered.bytes);
    message.set_logical_block_bytes(offered.logical_block_bytes);
    message.set_name(options.name);
    message.set_vhost_socket(options.vhost_socket);
    message.set_nbd_address(options.nbd_address);
    message.set_nbd_uri(offered.nbd_uri);
    message.set_control(options.control);
    message.set_serial(options.blk.serial);
    message.set_queues(options.blk.queues);
    message.set_queue_size(options.blk.queue_size);
    message.set_last_move(offered.last_move);
    return state::encode_section(export_section, 0, message);
}

Result<Offered> decode_offered(const state::Section& section) {
    const auto message = GODWIT_TRY(state::decode_section<state::Export>(export_section, section));
    if (message.image().empty() || message.place().empty()) {
        return state::bad_section(section, "it names no image");
    }
    if (message.name().size() > nbd::name_bytes_max) {
        return state::bad_section(section, "a name of more than 4096 bytes");
    }
    Offered offered{.options = {},
                    .place = {.path = message.place(), .direct = message.place_direct()},
                    .bytes = message.bytes(),
                    .logical_block_bytes = message.logical_block_bytes(),
                    .nbd_uri = message.nbd_uri(),
                    .last_move = message.last_move()};
    ServeOptions& options = offered.options;
    options.disk.path = message.image();
    options.disk.place = message.note();
    options.disk.read_only = message.read_only();
    options.disk.direct = message.direct();
    options.disk.profile = message.profile();
    options.vhost_socket = message.vhost_socket();
    options.nbd_address = message.nbd_address();
    options.name = message.name();
    options.control = message.control();
    options.blk = {.instance = 0,
                   .serial = message.serial(),
                   .queues = GODWIT_TRY(narrow<std::uint16_t>(message.queues(), "queues")),
                   .queue_size =
                       GODWIT_TRY(narrow<std::uint16_t>(message.queue_size(), "a queue size"))};
    GODWIT_TRY(virtio::validate(options.blk));
    return offered;
}

Status encode(Users users, state::SavedState& state, sys::FdManifest& descriptors) {
    if (users.front_end.has_value()) {
        GODWIT_TRY(encode_front_end(std::move(*users.front_end), state, descriptors));
    }
    StreamWriter stream;
    for (std::size_t i = 0; i < users.clients.size(); ++i) {
        GODWIT_TRY(encode_client(std::move(users.clients[i]), i, stream, state, descriptors));
    }
    return give(descriptors, stream_name, std::move(stream).take());
}

Result<Users> decode_users(state::SavedState& state, sys::FdManifest& descriptors) {
    Users users;
    if (state.has(front_end_section.id())) {
        users.front_end = GODWIT_TRY(
            decode_front_end(GODWIT_TRY(state.take(front_end_section.id())), descriptors));
    }
    StreamReader stream(GODWIT_TRY(take_if_there(descriptors, stream_name)));
    for (std::size_t i = 0; i < nbd::clients_max; ++i) {
        const state::SectionId id = client_section.id(static_cast<std::uint32_t>(i));
        if (!state.has(id)) {
            break;
        }
        users.clients.push_back(
            GODWIT_TRY(decode_client(GODWIT_TRY(state.take(id)), stream, descriptors)));
    }
    if (GODWIT_TRY(state.finish()) != 0 || descriptors.size() != 0) {
        return Error(ErrorCode::corrupt, "the state of an export's users holds what nobody needs");
    }
    return users;
}

} // namespace godwit::doors::exchange
