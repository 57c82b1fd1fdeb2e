#include "doors/vhost/session.h"

#include <array>
#include <string>

namespace godwit::doors::vhost {

namespace {

constexpr std::uint64_t protocol_offered =
    protocol_feature::multi_queue | protocol_feature::reply_ack |
    protocol_feature::backend_requests | protocol_feature::config | protocol_feature::inflight |
    protocol_feature::configure_mem_slots;

Error unknown_bits(const char* what, std::uint64_t bits) {
    return Error(ErrorCode::corrupt,
                 std::string(what) + " were taken that were not offered: " + std::to_string(bits));
}

} // namespace

Session::Session(virtio::VirtioDevice& device, const Channel& channel)
    : device_(device), channel_(channel), rings_(device) {}

std::uint64_t Session::offered() const noexcept {
    return device_.features() | virtio::feature_version_1 | virtio::feature_event_index |
           virtio::feature_indirect_descriptors | feature_protocol_features;
}

bool Session::torn() const noexcept {
    return memory_.torn() || (inflight_.has_value() && inflight_->torn());
}

Status Session::handle(Message message) {
    answered_ = false;
    switch (message.request()) {
    case Request::get_features:
    case Request::set_features:
    case Request::get_protocol_features:
    case Request::set_protocol_features:
    case Request::get_queue_num:
    case Request::get_max_mem_slots:
    case Request::set_owner:
    case Request::reset_owner:
        GODWIT_TRY(negotiate(message));
        break;
    case Request::set_mem_table:
    case Request::add_mem_reg:
    case Request::rem_mem_reg:
        GODWIT_TRY(change_memory(message));
        break;
    case Request::set_vring_num:
    case Request::set_vring_addr:
    case Request::set_vring_base:
    case Request::get_vring_base:
    case Request::set_vring_enable:
        GODWIT_TRY(change_ring(message));
        break;
    case Request::set_vring_kick:
    case Request::set_vring_call:
    case Request::set_vring_err:
    case Request::set_backend_req_fd:
        GODWIT_TRY(change_ring_fd(message));
        break;
    case Request::get_config:
    case Request::set_config:
        GODWIT_TRY(configuration(message));
        break;
    case Request::get_inflight_fd:
    case Request::set_inflight_fd:
        GODWIT_TRY(inflight(message));
        break;
    default:
        return Error(ErrorCode::unsupported,
                     "message " + std::to_string(message.header.request) + " is not known");
    }
    GODWIT_TRY(resume());
    return acknowledge(message);
}

Status Session::resume() {
    return rings_.run(surroundings());
}

Rings::Surroundings Session::surroundings() const noexcept {
    return {.features = features_,
            .memory = memory_,
            .inflight = inflight_.has_value() ? &*inflight_ : nullptr};
}

Result<SavedSession> Session::save(sys::Moment deadline) {
    if (!rings_.rest_until(deadline)) {
        return Error(ErrorCode::timeout, "requests of the guest do not come to an end");
    }
    SavedSession saved{.features = features_, .protocol_features = protocol_features_};
    saved.rings = GODWIT_TRY(rings_.save());
    saved.backend_channel = GODWIT_TRY(rings_.copy_backend_channel());
    for (const MemoryTable::Slot& slot : memory_.slots()) {
        saved.regions.push_back(
            {.region = slot.region, .object = GODWIT_TRY(slot.object.duplicate())});
    }
    if (inflight_.has_value()) {
        saved.inflight = inflight_->description();
        saved.inflight_object = GODWIT_TRY(inflight_->object().duplicate());
    }
    return saved;
}

Result<std::unique_ptr<Session>>
Session::restore(virtio::VirtioDevice& device, const Channel& channel, SavedSession saved) {
    auto made = std::make_unique<Session>(device, channel);
    if ((saved.features & ~made->offered()) != 0) {
        return unknown_bits("features", saved.features & ~made->offered());
    }
    if ((saved.protocol_features & ~protocol_offered) != 0) {
        return unknown_bits("protocol features", saved.protocol_features & ~protocol_offered);
    }
    made->features_ = saved.features;
    made->protocol_features_ = saved.protocol_features;
    for (const SavedSession::Region& each : saved.regions) {
        GODWIT_TRY(made->memory_.add(each.region, each.object));
    }
    if (saved.inflight.has_value()) {
        made->inflight_ = GODWIT_TRY(InflightMemory::adopt(saved.inflight_object, *saved.inflight));
    }
    GODWIT_TRY(made->rings_.restore(std::move(saved.rings)));
    if (saved.backend_channel.valid()) {
        made->rings_.set_backend_channel(std::move(saved.backend_channel));
    }
    GODWIT_TRY(made->rings_.check(made->surroundings()));
    return made;
}

Status Session::acknowledge(const Message& message) {
    if (answered_ || !message.needs_reply() || !negotiated(protocol_feature::reply_ack)) {
        return ok();
    }
    return channel_.reply_with(message, std::uint64_t{0});
}

Status Session::negotiate(const Message& message) {
    const auto answer = [&](std::uint64_t value) {
        answered_ = true;
        return channel_.reply_with(message, value);
    };
    switch (message.request()) {
    case Request::get_features:
        return answer(offered());
    case Request::set_features: {
        const auto taken = GODWIT_TRY(message.body<std::uint64_t>());
        if ((taken & ~offered()) != 0) {
            return unknown_bits("features", taken & ~offered());
        }
        rings_.rest();
        features_ = taken;
        if ((taken & feature_protocol_features) == 0) {
            rings_.enable_all();
        }
        return ok();
    }
    case Request::get_protocol_features:
        return answer(protocol_offered);
    case Request::set_protocol_features: {
        const auto taken = GODWIT_TRY(message.body<std::uint64_t>());
        if ((taken & ~protocol_offered) != 0) {
            return unknown_bits("protocol features", taken & ~protocol_offered);
        }
        protocol_features_ = taken;
        return ok();
    }
    case Request::get_queue_num:
        return answer(device_.queue_sizes().size());
    case Request::get_max_mem_slots:
        return answer(memory_slots_max);
    default: // SET_OWNER and RESET_OWNER: one connection has one owner.
        return ok();
    }
}

Status Session::change_memory(Message& message) {
    rings_.rest();
    if (message.request() == Request::set_mem_table) {
        return set_table(message);
    }
    const auto single = GODWIT_TRY(message.body<SingleRegion>());
    if (message.request() == Request::add_mem_reg) {
        return memory_.add(single.region, GODWIT_TRY(message.take_fd()));
    }
    return memory_.remove(single.region); // A descriptor that came along is closed.
}

Status Session::set_table(Message& message) {
    if (message.payload.size() < sizeof(MemoryTableHead)) {
        return message.wrong_length(sizeof(MemoryTableHead));
    }
    MemoryTableHead head;
    std::memcpy(&head, message.payload.data(), sizeof(head));
    if (head.regions > table_regions_max || head.regions != message.fds.size()) {
        return Error(ErrorCode::corrupt,
                     "a memory table of " + std::to_string(head.regions) + " regions with " +
                         std::to_string(message.fds.size()) + " descriptors");
    }
    if (message.payload.size() < sizeof(head) + head.regions * sizeof(MemoryRegion)) {
        return message.wrong_length(sizeof(head) + head.regions * sizeof(MemoryRegion));
    }
    memory_.clear();
    for (std::uint32_t i = 0; i < head.regions; ++i) {
        MemoryRegion region;
        std::memcpy(
            &region, message.payload.data() + sizeof(head) + i * sizeof(region), sizeof(region));
        GODWIT_TRY(memory_.add(region, message.fds[i]));
    }
    return ok();
}

Status Session::change_ring(Message& message) {
    if (message.request() == Request::set_vring_addr) {
        return rings_.set_addresses(GODWIT_TRY(message.body<RingAddresses>()));
    }
    const auto state = GODWIT_TRY(message.body<RingState>());
    switch (message.request()) {
    case Request::set_vring_num:
        return rings_.set_size(state);
    case Request::set_vring_base:
        return rings_.set_base(state);
    case Request::set_vring_enable:
        return rings_.enable(state.index, state.number);
    default: {
        const RingState stopped = GODWIT_TRY(rings_.stop(state.index));
        answered_ = true;
        return channel_.reply_with(message, stopped);
    }
    }
}

Status Session::change_ring_fd(Message& message) {
    if (message.request() == Request::set_backend_req_fd) {
        sys::Fd socket = GODWIT_TRY(message.take_fd());
        GODWIT_TRY(sys::set_nonblocking(socket));
        rings_.set_backend_channel(std::move(socket));
        return ok();
    }
    const auto value = GODWIT_TRY(message.body<std::uint64_t>());
    if ((value & ~(ring_index_mask | ring_no_fd)) != 0) {
        return Error(ErrorCode::corrupt, "a ring descriptor with value " + std::to_string(value));
    }
    const auto index = static_cast<std::uint32_t>(value & ring_index_mask);
    std::optional<sys::EventFd> event;
    if ((value & ring_no_fd) == 0) {
        event = GODWIT_TRY(sys::EventFd::adopt(GODWIT_TRY(message.take_fd())));
    }
    switch (message.request()) {
    case Request::set_vring_call:
        return rings_.set_call(index, std::move(event));
    case Request::set_vring_err:
        return rings_.set_error(index, std::move(event));
    default:
        if (!event.has_value()) {
            return Error(ErrorCode::unsupported,
                         "a ring without a doorbell would have to be polled");
        }
        return rings_.start(index, std::move(*event));
    }
}

Status Session::configuration(const Message& message) {
    ConfigHead head;
    if (message.payload.size() < sizeof(head)) {
        return message.wrong_length(sizeof(head));
    }
    std::memcpy(&head, message.payload.data(), sizeof(head));
    if (head.bytes > config_bytes_max || head.offset > config_bytes_max ||
        message.payload.size() != sizeof(head) + head.bytes) {
        return message.wrong_length(sizeof(head) + head.bytes);
    }
    std::array<std::byte, sizeof(head) + config_bytes_max> bytes{};
    std::memcpy(bytes.data(), message.payload.data(), message.payload.size());
    const auto part = std::span(bytes).subspan(sizeof(head), head.bytes);
    if (message.request() == Request::set_config) {
        device_.write_config(head.offset, part);
        return ok();
    }
    device_.read_config(head.offset, part);
    answered_ = true;
    return channel_.reply(message, std::span(bytes).first(sizeof(head) + head.bytes));
}

Status Session::inflight(Message& message) {
    // The specification's structure has 20 bytes; QEMU sends its padding, too.
    const std::size_t length = message.payload.size() == sizeof(InflightDescription)
                                   ? sizeof(InflightDescription)
                                   : inflight_description_bytes;
    const auto description = GODWIT_TRY(message.body<InflightDescription>(length));
    if (message.request() == Request::set_inflight_fd) {
        const sys::Fd object = GODWIT_TRY(message.take_fd());
        rings_.rest();
        inflight_ = GODWIT_TRY(InflightMemory::adopt(object, description));
        return ok();
    }
    const auto made =
        GODWIT_TRY(InflightMemory::create(description.queues, description.queue_size));
    answered_ = true;
    return channel_.reply(
        message, std::as_bytes(std::span(&made.description, 1)).first(length), &made.object);
}

} // namespace godwit::doors::vhost
