#pragma once

/// Which virtio devices a machine has and where each sits on the PCI bus: a pure function of its
/// document, so that both ends of a handover agree. Slots are given in order: disks, nets, console,
/// entropy, balloon.

#include "machine/machine_spec.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace godwit::machine {

enum class DeviceKind : std::uint8_t { disk, net, console, rng, balloon };

struct PlannedDevice {
    DeviceKind kind = DeviceKind::disk;
    std::size_t index = 0; ///< Among its kind.
    std::uint8_t slot = 1;
};

/// Slots of bus 0 that are free for devices.
inline constexpr std::size_t devices_max = 31;

[[nodiscard]] std::vector<PlannedDevice> plan_devices(const MachineSpec& spec);

/// "disk0", "net1", "virtio-rng": for people.
[[nodiscard]] std::string device_name(const PlannedDevice& device);

} // namespace godwit::machine
