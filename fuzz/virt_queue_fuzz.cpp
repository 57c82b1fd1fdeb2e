// The virtqueue against a guest that writes anything anywhere. The input is a list of operations:
// guest writes into a small window of RAM that holds the rings, and what a device does between
// them. Checked besides "no crash": every segment the queue hands out lies in RAM and the counts
// agree.

#include "input.h"
#include "virtio/testing/driver_queue.h"
#include "virtio/virt_queue.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <span>

using namespace godwit;
using fuzz::Input;

namespace {

constexpr Gpa window{0x1000}; ///< What the input can write to: rings, tables, data.
constexpr std::uint64_t window_bytes = 0x3000;
constexpr std::size_t operations_max = 512;
constexpr std::size_t chains_max = 64;

const std::shared_ptr<memory::GuestMemory>& shared_memory() {
    static const auto memory = virtio::testing::make_memory();
    return memory;
}

void check_in_ram(std::span<const iovec> segments, std::uint64_t expected_bytes) {
    const auto& region = shared_memory()->regions().front();
    std::uint64_t total = 0;
    for (const iovec& segment : segments) {
        const auto* start = static_cast<const std::byte*>(segment.iov_base);
        GODWIT_ASSERT(start >= region.host && segment.iov_len > 0 &&
                      start + segment.iov_len <= region.host + region.ram.bytes);
        total += segment.iov_len;
    }
    GODWIT_ASSERT(total == expected_bytes);
}

void guest_writes(Input& input) {
    const std::uint64_t offset = input.take<std::uint16_t>() % window_bytes;
    const auto bytes = input.take_bytes(input.take<std::uint8_t>());
    const std::size_t fits = std::min<std::size_t>(bytes.size(), window_bytes - offset);
    discard(shared_memory()->write(Gpa{window.value + offset}, std::as_bytes(bytes.first(fits))),
            "the window is RAM");
}

void device_pops(virtio::VirtQueue& queue, std::deque<virtio::Chain>& taken) {
    if (taken.size() >= chains_max) {
        return;
    }
    virtio::Chain chain;
    const Result<bool> popped = queue.pop(chain);
    if (!popped.has_value() || !*popped) {
        return;
    }
    check_in_ram(chain.readable, chain.readable_bytes);
    check_in_ram(chain.writable, chain.writable_bytes);
    GODWIT_ASSERT(chain.writable.size() == chain.writable_at.size());
    std::array<std::byte, 64> buffer{};
    const std::size_t read = chain.copy_out(1, buffer);
    GODWIT_ASSERT(read <= buffer.size());
    taken.push_back(std::move(chain));
}

void device_pushes(Input& input, virtio::VirtQueue& queue, std::deque<virtio::Chain>& taken) {
    if (taken.empty()) {
        return;
    }
    const virtio::Chain chain = std::move(taken.front());
    taken.pop_front();
    const std::array<std::byte, 32> answer{};
    const std::size_t written = chain.copy_in(0, answer);
    queue.push(chain, std::min<std::uint64_t>(written, input.take<std::uint8_t>()));
}

void operate(Input& input, virtio::VirtQueue& queue) {
    std::deque<virtio::Chain> taken;
    for (std::size_t i = 0; i < operations_max && !input.empty(); ++i) {
        switch (input.take<std::uint8_t>() % 8) {
        case 0:
        case 1:
            guest_writes(input);
            break;
        case 2:
        case 3:
            device_pops(queue, taken);
            break;
        case 4:
            device_pushes(input, queue, taken);
            break;
        case 5:
            static_cast<void>(queue.take_notification_due());
            break;
        case 6:
            queue.disable_doorbell();
            static_cast<void>(queue.enable_doorbell());
            break;
        default:
            if (!taken.empty()) {
                queue.undo_pop();
                taken.pop_back();
            }
            break;
        }
        GODWIT_ASSERT(queue.outstanding() == taken.size());
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input({data, size});
    const auto& memory = shared_memory();
    static const std::vector<std::byte> zeroes(window_bytes);
    discard(memory->write(window, zeroes), "the window is RAM");
    const auto options = input.take<std::uint8_t>();
    virtio::QueueState state;
    state.size = static_cast<std::uint16_t>(1U << (options & 7U));
    state.ready = true;
    state.descriptors = window;
    state.driver_area = Gpa{window.value + 0x1000};
    state.device_area = Gpa{window.value + 0x2000};
    state.next_available = input.take<std::uint16_t>();
    state.next_used = input.take<std::uint16_t>();
    if ((options & 0x20U) != 0) { // Also hostile placements, as from a saved state.
        state.descriptors.value ^= input.take<std::uint64_t>();
        state.device_area.value ^= input.take<std::uint64_t>();
    }
    auto queue = virtio::VirtQueue::create(
        memory, state, {.event_index = (options & 0x40U) != 0, .indirect = (options & 0x80U) != 0});
    if (queue.has_value()) {
        operate(input, *queue);
    }
    return 0;
}
