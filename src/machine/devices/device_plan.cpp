#include "machine/devices/device_plan.h"

namespace godwit::machine {

std::vector<PlannedDevice> plan_devices(const MachineSpec& spec) {
    std::vector<PlannedDevice> plan;
    const auto put = [&plan](DeviceKind kind, std::size_t index) {
        const auto slot = static_cast<std::uint8_t>(plan.size() + 1);
        plan.push_back({.kind = kind, .index = index, .slot = slot});
    };
    for (std::size_t i = 0; i < spec.disks.size(); ++i) {
        put(DeviceKind::disk, i);
    }
    for (std::size_t i = 0; i < spec.nets.size(); ++i) {
        put(DeviceKind::net, i);
    }
    if (spec.virtio_console) {
        put(DeviceKind::console, 0);
    }
    if (spec.rng) {
        put(DeviceKind::rng, 0);
    }
    if (spec.balloon.has_value()) {
        put(DeviceKind::balloon, 0);
    }
    return plan;
}

state::SectionId device_section_id(const PlannedDevice& device) {
    const auto instance = static_cast<std::uint32_t>(device.index);
    switch (device.kind) {
    case DeviceKind::disk:
        return {.name = "virtio-blk", .instance = instance};
    case DeviceKind::net:
        return {.name = "virtio-net", .instance = instance};
    case DeviceKind::console:
        return {.name = "virtio-console", .instance = instance};
    case DeviceKind::rng:
        return {.name = "virtio-rng", .instance = instance};
    case DeviceKind::balloon:
        return {.name = "virtio-balloon", .instance = instance};
    }
    return {};
}

state::SectionId transport_section_id(const PlannedDevice& device) {
    return {.name = "virtio-pci", .instance = device.slot};
}

} // namespace godwit::machine
