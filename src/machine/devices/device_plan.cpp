#include "machine/devices/device_plan.h"

#include "machine/resources.h"

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

std::string device_name(const PlannedDevice& device) {
    switch (device.kind) {
    case DeviceKind::disk:
        return disk_resource_name(device.index);
    case DeviceKind::net:
        return "net" + std::to_string(device.index);
    case DeviceKind::console:
        return "virtio-console";
    case DeviceKind::rng:
        return "virtio-rng";
    case DeviceKind::balloon:
        return "virtio-balloon";
    }
    return "device";
}

} // namespace godwit::machine
