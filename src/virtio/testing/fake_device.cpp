#include "virtio/testing/fake_device.h"

#include "bus/little_endian.h"

namespace godwit::virtio::testing {

void FakeDevice::read_config(std::uint32_t offset, std::span<std::byte> out) {
    bus::copy_from(config, offset, out);
}

void FakeDevice::write_config(std::uint32_t offset, std::span<const std::byte> data) {
    for (std::size_t i = 0; i < data.size() && offset + i < config.size(); ++i) {
        config[offset + i] = data[i];
    }
}

Status FakeDevice::activate(Activation activation) {
    if (refuse_activation) {
        return Error(ErrorCode::io, "the test refuses activation");
    }
    active = std::move(activation);
    return ok();
}

void FakeDevice::reset() {
    ++resets;
    active.reset();
}

std::vector<std::optional<QueueState>> FakeDevice::queue_states() const {
    std::vector<std::optional<QueueState>> states(2);
    for (std::size_t i = 0; active.has_value() && i < states.size(); ++i) {
        if (active->queues[i].has_value()) {
            states[i] = active->queues[i]->state();
        }
    }
    return states;
}

} // namespace godwit::virtio::testing
