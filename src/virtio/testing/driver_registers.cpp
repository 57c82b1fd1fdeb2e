#include "virtio/testing/driver_registers.h"

namespace godwit::virtio::testing {

std::uint64_t DriverRegisters::config_read(std::uint64_t offset, std::size_t bytes) const {
    return space_.read(config_ + offset, bytes);
}

void DriverRegisters::config_write(std::uint64_t offset,
                                   std::size_t bytes,
                                   std::uint64_t value) const {
    space_.write(config_ + offset, bytes, value);
}

std::uint64_t DriverRegisters::capability(std::uint8_t id, std::uint8_t virtio_type) const {
    std::uint64_t at = config_read(0x34, 1);
    for (int hops = 0; at != 0 && hops < 48; ++hops) {
        if (config_read(at, 1) == id && (id != 0x09 || config_read(at + 3, 1) == virtio_type)) {
            return at;
        }
        at = config_read(at + 1, 1);
    }
    GODWIT_ASSERT(false && "the function has no such capability");
    return 0;
}

std::uint64_t DriverRegisters::structure(std::uint8_t virtio_type) const {
    return bar() + config_read(capability(0x09, virtio_type) + 8, 4);
}

Gpa DriverRegisters::doorbell(std::uint16_t queue) const {
    write(0x16, 2, queue);
    const std::uint64_t multiplier = config_read(capability(0x09, 2) + 16, 4);
    return Gpa{structure(2) + read(0x1e, 2) * multiplier};
}

std::uint64_t DriverRegisters::read(std::uint64_t offset, std::size_t bytes) const {
    return space_.read(structure(1) + offset, bytes);
}

void DriverRegisters::write(std::uint64_t offset, std::size_t bytes, std::uint64_t value) const {
    space_.write(structure(1) + offset, bytes, value);
}

std::uint8_t DriverRegisters::status() const {
    return static_cast<std::uint8_t>(read(0x14, 1));
}

std::uint64_t DriverRegisters::offered_features() const {
    write(0x00, 4, 0);
    const std::uint64_t low = read(0x04, 4);
    write(0x00, 4, 1);
    return low | (read(0x04, 4) << 32U);
}

void DriverRegisters::set_features(std::uint64_t features) const {
    write(0x08, 4, 0);
    write(0x0c, 4, features & 0xffff'ffffU);
    write(0x08, 4, 1);
    write(0x0c, 4, features >> 32U);
}

void DriverRegisters::set_queue(std::uint16_t index,
                                const QueueState& queue,
                                std::uint16_t vector) const {
    write(0x16, 2, index);
    write(0x18, 2, queue.size);
    write(0x1a, 2, vector);
    write(0x20, 4, queue.descriptors.value & 0xffff'ffffU);
    write(0x24, 4, queue.descriptors.value >> 32U);
    write(0x28, 8, queue.driver_area.value);
    write(0x30, 8, queue.device_area.value);
    write(0x1c, 2, 1);
}

std::uint8_t DriverRegisters::negotiate(std::uint64_t features) const {
    set_status(0);
    set_status(1);
    set_status(1 | 2);
    set_features(features);
    set_status(1 | 2 | 8);
    return status();
}

std::uint8_t DriverRegisters::driver_ok() const {
    set_status(static_cast<std::uint8_t>(status() | 4U));
    return status();
}

void DriverRegisters::enable_msix() const {
    const std::uint64_t at = capability(0x11);
    config_write(at + 2, 2, config_read(at + 2, 2) | 0x8000U);
}

void DriverRegisters::program_vector(std::uint16_t vector, bus::MsiMessage message) const {
    const std::uint64_t entry = bar() + config_read(capability(0x11) + 4, 4) + 16ULL * vector;
    space_.write(entry, 4, message.address & 0xffff'ffffU);
    space_.write(entry + 4, 4, message.address >> 32U);
    space_.write(entry + 8, 4, message.data);
    space_.write(entry + 12, 4, 0);
}

void DriverRegisters::mask_vector(std::uint16_t vector, bool masked) const {
    const std::uint64_t entry = bar() + config_read(capability(0x11) + 4, 4) + 16ULL * vector;
    space_.write(entry + 12, 4, masked ? 1 : 0);
}

} // namespace godwit::virtio::testing
