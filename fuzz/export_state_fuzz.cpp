// What a predecessor hands to a godwit-blk: sections of users, with descriptors as saved_users()
// has them, read as they are and with their checksums made right. A session that is accepted is
// restored over a disk in memory and runs; a client's negotiation goes on with what it had sent.

#include "doors/testing/saved_users.h"
#include "hostile_driver.h"
#include "state/testing/reseal.h"
#include "sys/unix_socket.h"
#include "virtio/blk/blk_device.h"
#include "virtio/testing/memory_disk.h"

using namespace godwit;
using doors::nbd::Negotiation;

namespace {

virtio::BlkDevice& device() {
    static const auto control = std::make_shared<virtio::testing::MemoryDiskControl>();
    auto& loop = fuzz::io_thread().loop();
    static const auto made = GODWIT_MUST(virtio::BlkDevice::create( // good options
        {.options = {.instance = 0, .serial = "fuzz", .queues = 2, .queue_size = 64},
         .disk = std::make_unique<virtio::testing::MemoryDisk>(
             loop, block::BlockGeometry{.bytes = 64 * kib, .can_discard = true}, control),
         .loop = loop,
         .health_changed = {}}));
    return *made;
}

void restore(doors::vhost::SavedSession saved) {
    auto [ours, theirs] = GODWIT_MUST(sys::MessageSocket::pair()); // sockets are to be had
    doors::vhost::Channel channel(std::move(ours).take());
    auto session = doors::vhost::Session::restore(device(), channel, std::move(saved));
    if (session.has_value()) {
        discard((*session)->resume(), "memory may be what it likes");
    }
}

void go_on(const doors::nbd::SavedConnection& client) {
    GODWIT_ASSERT(client.input.size() <= doors::nbd::saved_input_bytes_max);
    GODWIT_ASSERT(client.output.size() <= doors::nbd::saved_output_bytes_max);
    Negotiation negotiation(client.negotiation);
    std::span<const std::byte> in = client.input;
    for (std::size_t taken = 1;
         taken > 0 && negotiation.phase() < Negotiation::Phase::transmission;) {
        const auto more = negotiation.take(in);
        if (!more.has_value()) {
            return;
        }
        taken = *more;
        in = in.subspan(taken);
    }
}

void read_one(std::string_view bytes) {
    auto state = state::SavedState::decode(std::as_bytes(std::span(bytes)));
    if (!state.has_value()) {
        return;
    }
    if (state->has(doors::exchange::export_section.id())) {
        discard(doors::exchange::decode_offered(
                    GODWIT_MUST(state->take(doors::exchange::export_section.id()))), // it is there
                "it may be refused");
    }
    sys::FdManifest descriptors = doors::testing::descriptors_for(doors::testing::saved_users());
    auto users = doors::exchange::decode_users(*state, descriptors);
    if (!users.has_value()) {
        return;
    }
    if (users->front_end.has_value()) {
        restore(std::move(users->front_end->session));
    }
    for (const auto& client : users->clients) {
        go_on(client);
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::string bytes(reinterpret_cast<const char*>(data), size);
    read_one(bytes);
    state::testing::reseal(bytes);
    read_one(bytes);
    return 0;
}
