// A front end that says anything: messages with payloads and descriptors of the input's choice, to
// a session over a virtio disk in memory. Guest memory is a file whose first page is the input's,
// too.
//
// Each message: request (1 byte), what comes along (1 byte: how many descriptors, of which kind),
// length of the payload (1 byte), payload.

#include "doors/vhost/session.h"
#include "hostile_driver.h"
#include "sys/unix_socket.h"
#include "virtio/blk/blk_device.h"
#include "virtio/testing/memory_disk.h"

using namespace godwit;

namespace {

constexpr std::uint64_t ram_bytes = 64 * kib;
constexpr int messages_max = 200;

virtio::BlkDevice& device() {
    static const auto control = std::make_shared<virtio::testing::MemoryDiskControl>();
    auto& loop = fuzz::io_thread().loop();
    static const auto made = GODWIT_MUST(virtio::BlkDevice::create( // good options
        {.options = {.instance = 0, .serial = "fuzz", .queues = 2, .queue_size = 16},
         .disk = std::make_unique<virtio::testing::MemoryDisk>(
             loop, block::BlockGeometry{.bytes = 64 * kib, .can_discard = true}, control),
         .loop = loop,
         .health_changed = {}}));
    return *made;
}

/// What a front end may send along.
class Descriptors {
  public:
    Descriptors()
        : ram_(GODWIT_MUST(sys::create_memfd("fuzz", ram_bytes))), // memory is to be had
          event_(GODWIT_MUST(sys::EventFd::create())) {}           // and an eventfd
    [[nodiscard]] const sys::Fd& ram() const { return ram_; }
    [[nodiscard]] sys::Fd take(bool event) const {
        return GODWIT_MUST((event ? event_.fd() : ram_).duplicate()); // there are enough
    }

  private:
    sys::Fd ram_;
    sys::EventFd event_;
};

doors::vhost::Message next_message(fuzz::Input& input, const Descriptors& descriptors) {
    doors::vhost::Message message;
    message.header.request = input.take<std::uint8_t>() % 48;
    const auto along = input.take<std::uint8_t>();
    message.header.flags = doors::vhost::flag_version | ((along & 0x80U) != 0 ? 8U : 0U);
    for (unsigned i = 0; i < (along & 3U); ++i) {
        message.fds.push_back(descriptors.take((along & 4U) != 0));
    }
    const auto payload = input.take_bytes(input.take<std::uint8_t>());
    message.header.bytes = static_cast<std::uint32_t>(payload.size());
    for (const std::uint8_t byte : payload) {
        message.payload.push_back(static_cast<std::byte>(byte));
    }
    return message;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input({data, size});
    const Descriptors descriptors;
    const auto page = input.take_bytes(input.take<std::uint16_t>() % 4096);
    discard(sys::pwrite_all(descriptors.ram(), std::as_bytes(page), 0), "a file in memory");
    auto [ours, theirs] = GODWIT_MUST(sys::MessageSocket::pair()); // sockets are to be had
    doors::vhost::Channel channel(std::move(ours).take());
    doors::vhost::Session session(device(), channel);
    for (int i = 0; i < messages_max && !input.empty(); ++i) {
        if (!session.handle(next_message(input, descriptors)).has_value()) {
            break;
        }
        while (theirs.receive(std::chrono::milliseconds(0)).has_value()) {
        }
    }
    return 0;
}
