#include "doors/testing/front_end.h"

#include "sys/fd_stream.h"
#include "sys/stream.h"
#include "sys/unix_socket.h"

namespace godwit::doors::testing {

namespace {

std::shared_ptr<memory::GuestMemory> map_ram(const sys::Fd& ram) {
    auto mapping = std::make_shared<sys::MappedRegion>(GODWIT_MUST( // just made, and of that size
        sys::MappedRegion::create(ram, 0, front_end_ram_bytes, sys::MapMode::shared)));
    const std::vector<memory::GuestMemory::Part> parts{
        {.start = Gpa{0}, .bytes = mapping->bytes()}};
    return GODWIT_MUST(memory::GuestMemory::assemble(parts, mapping)); // one aligned part
}

} // namespace

// A test without sockets, memory or eventfds has nothing to go on with.
FrontEnd::FrontEnd(const std::string& path)
    : socket_(GODWIT_MUST(sys::connect_stream(path))),
      ram_(GODWIT_MUST(sys::create_memfd("front-end", front_end_ram_bytes))), // as above
      memory_(map_ram(ram_)), kick_(GODWIT_MUST(sys::EventFd::create())),     // as above
      call_(GODWIT_MUST(sys::EventFd::create())) {}                           // as above

void FrontEnd::send_raw(std::span<const std::byte> bytes, std::vector<const sys::Fd*> fds) {
    discard(sys::send_with_fds(socket_, bytes, fds), "a server may have closed the connection");
}

void FrontEnd::send(vhost::Request request,
                    std::span<const std::byte> payload,
                    std::vector<const sys::Fd*> fds,
                    std::uint32_t flags) {
    const vhost::Header header{.request = static_cast<std::uint32_t>(request),
                               .flags = flags,
                               .bytes = static_cast<std::uint32_t>(payload.size())};
    std::vector<std::byte> bytes(sizeof(header) + payload.size());
    std::memcpy(bytes.data(), &header, sizeof(header));
    if (!payload.empty()) {
        std::memcpy(bytes.data() + sizeof(header), payload.data(), payload.size());
    }
    send_raw(bytes, std::move(fds));
}

std::optional<FrontEnd::Reply> FrontEnd::receive() {
    Reply reply;
    const auto fill = [&](std::span<std::byte> out) {
        while (!out.empty()) {
            const auto got = sys::receive_with_fds(socket_, out, reply.fds);
            if (!got.has_value()) {
                return false;
            }
            out = out.subspan(*got);
        }
        return true;
    };
    if (!fill(std::as_writable_bytes(std::span(&reply.header, 1)))) {
        return std::nullopt;
    }
    reply.payload.resize(reply.header.bytes);
    if (!fill(reply.payload)) {
        return std::nullopt;
    }
    return reply;
}

bool FrontEnd::alive() {
    send(vhost::Request::get_queue_num, std::span<const std::byte>());
    return receive().has_value();
}

void FrontEnd::negotiate(std::uint64_t features) {
    const auto offered = ask(vhost::Request::get_features).body<std::uint64_t>();
    const auto protocol = ask(vhost::Request::get_protocol_features).body<std::uint64_t>();
    send(vhost::Request::set_protocol_features, protocol);
    send(vhost::Request::set_owner, std::span<const std::byte>());
    send(vhost::Request::set_features, offered & (features | vhost::feature_protocol_features));
}

vhost::MemoryRegion FrontEnd::region() const {
    return {.guest_address = 0,
            .bytes = front_end_ram_bytes,
            .user_address = front_end_user_base,
            .mapping_offset = 0};
}

void FrontEnd::share_memory() {
    struct {
        vhost::MemoryTableHead head{.regions = 1, .padding = 0};
        vhost::MemoryRegion region;
    } table;
    table.region = region();
    send(vhost::Request::set_mem_table, table, {&ram_});
}

vhost::RingAddresses addresses_of(std::uint32_t index, const virtio::QueueState& state) {
    return {.index = index,
            .flags = 0,
            .descriptors = front_end_user_base + state.descriptors.value,
            .used = front_end_user_base + state.device_area.value,
            .available = front_end_user_base + state.driver_area.value,
            .log = 0};
}

void FrontEnd::start_ring(std::uint32_t index, const virtio::QueueState& state) {
    using vhost::Request;
    send(Request::set_vring_num, vhost::RingState{.index = index, .number = state.size});
    send(Request::set_vring_base, vhost::RingState{.index = index, .number = state.next_available});
    send(Request::set_vring_addr, addresses_of(index, state));
    send(Request::set_vring_call, std::uint64_t{index}, {&call_.fd()});
    send(Request::set_vring_kick, std::uint64_t{index}, {&kick_.fd()});
    send(Request::set_vring_enable, vhost::RingState{.index = index, .number = 1});
}

std::uint32_t FrontEnd::stop_ring(std::uint32_t index) {
    return ask(vhost::Request::get_vring_base, vhost::RingState{.index = index, .number = 0})
        .body<vhost::RingState>()
        .number;
}

bool FrontEnd::wait_for_call() const {
    const auto ready = sys::wait_ready(call_.fd(), sys::Direction::input, std::chrono::seconds(10));
    return ready.has_value() && *ready && call_.drain();
}

} // namespace godwit::doors::testing
