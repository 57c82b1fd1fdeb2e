#include "virtio/testing/guest_driver.h"

namespace godwit::virtio::testing {

namespace {
constexpr std::uint64_t rings_at = 0x10'0000;
constexpr std::uint64_t rings_bytes = 0x1'0000;
constexpr std::uint64_t data_at = 0x80'0000;
constexpr std::uint64_t data_bytes = 1 * mib;
} // namespace

std::unique_ptr<sys::IoThread> make_io_thread() {
    return GODWIT_MUST(sys::IoThread::create("device-test")); // as below
}

// What a test needs from the host (memory, eventfds) it cannot do without: GODWIT_MUST.
GuestDriver::GuestDriver(std::size_t queues, std::uint16_t queue_size) : memory_(make_memory()) {
    for (std::size_t i = 0; i < queues; ++i) {
        doorbells_.push_back(GODWIT_MUST(sys::EventFd::create()));
        DriverQueue::Options options;
        options.rings = Gpa{rings_at + i * rings_bytes};
        options.data = Gpa{data_at + i * data_bytes};
        options.data_bytes = data_bytes;
        options.size = queue_size;
        queues_.push_back(std::make_unique<DriverQueue>(memory_, options));
    }
    for (std::size_t i = 0; i < queues; ++i) {
        queues_[i]->set_doorbell(&doorbells_[i]);
    }
}

Status GuestDriver::activate(VirtioDevice& device, std::uint64_t features) {
    std::vector<std::optional<QueueState>> states;
    for (const auto& queue : queues_) {
        states.emplace_back(queue->state());
    }
    return activate(device, features, states);
}

Status GuestDriver::activate(VirtioDevice& device,
                             std::uint64_t features,
                             const std::vector<std::optional<QueueState>>& states) {
    Activation activation{.features = features, .queues = {}, .doorbells = {}};
    for (std::size_t i = 0; i < states.size(); ++i) {
        activation.queues.emplace_back();
        if (states[i].has_value()) {
            activation.queues.back() =
                GODWIT_TRY(VirtQueue::create(memory_, *states[i], queues_[i]->options().features));
        }
        activation.doorbells.push_back(GODWIT_TRY(doorbells_[i].duplicate()));
    }
    return device.activate(std::move(activation));
}

std::optional<Used> GuestDriver::wait_used(std::size_t index) {
    const auto number = static_cast<std::uint16_t>(index);
    for (;;) {
        // Counted before looking: what comes later raises the count.
        const std::uint32_t seen = host_.queue_notices(number);
        if (auto used = queues_[index]->take_used()) {
            return used;
        }
        if (!host_.wait_for_queue(number, seen + 1)) {
            return std::nullopt;
        }
    }
}

} // namespace godwit::virtio::testing
