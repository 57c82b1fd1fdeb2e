#pragma once

/// What a virtio device model is to its transport, and the transport to it.
///
/// Life of a device: it is made at rest. wake() lets it work, quiesce() brings it back to rest with
/// nothing in flight. Independently the driver activates it (DRIVER_OK) and resets it. A restored
/// device is made from its saved section, activated again with the saved queues, and woken like any
/// other.
///
/// Thread rule: every method may be called from a vCPU thread or the control thread, one at a time
/// (the transport's lock); the device itself moves work to the event loop it was given, whose
/// thread runs during the whole life of the device. DeviceHost may be called from any thread.

#include "base/result.h"
#include "memory/guest_memory.h"
#include "state/state_unit.h"
#include "sys/fd.h"
#include "virtio/virt_queue.h"

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace godwit::virtio {

/// Device types (virtio 1.2, section 5).
enum class DeviceType : std::uint16_t {
    network = 1,
    block = 2,
    console = 3,
    entropy = 4,
    balloon = 5
};

// Feature bits every device shares (section 6).
inline constexpr std::uint64_t feature_indirect_descriptors = 1ULL << 28U;
inline constexpr std::uint64_t feature_event_index = 1ULL << 29U;
inline constexpr std::uint64_t feature_version_1 = 1ULL << 32U;

class DeviceHost {
  public:
    DeviceHost() = default;
    DeviceHost(const DeviceHost&) = delete;
    DeviceHost& operator=(const DeviceHost&) = delete;
    virtual ~DeviceHost() = default;
    /// Interrupts the driver for this queue (the device has already asked take_notification_due()).
    virtual void notify_queue(std::uint16_t queue) noexcept = 0;
    /// The device configuration changed.
    virtual void notify_config() noexcept = 0;
    /// The driver broke the rules: DEVICE_NEEDS_RESET is set, the reason is logged once, and no
    /// queue is served until the driver resets the device.
    virtual void needs_reset(const Error& reason) noexcept = 0;
};

/// Everything a device gets at DRIVER_OK. `queues` has one entry per queue of the device, empty
/// where the driver did not enable it; `doorbells[i]` is signalled when the driver kicks queue i.
struct Activation {
    std::uint64_t features = 0;
    std::vector<std::optional<VirtQueue>> queues;
    std::vector<sys::EventFd> doorbells;
};

class VirtioDevice {
  public:
    VirtioDevice() = default;
    VirtioDevice(const VirtioDevice&) = delete;
    VirtioDevice& operator=(const VirtioDevice&) = delete;
    virtual ~VirtioDevice() = default;

    [[nodiscard]] virtual DeviceType type() const noexcept = 0;
    /// Offered feature bits, without those the transport adds (version 1, event index, indirect).
    [[nodiscard]] virtual std::uint64_t features() const noexcept = 0;
    /// The largest size of each queue, a power of two up to queue_size_max; its length is the
    /// number of queues, fixed for the life of the device.
    [[nodiscard]] virtual std::vector<std::uint16_t> queue_sizes() const = 0;
    /// Device configuration space. Reads beyond it give zeroes; writes beyond it are ignored.
    virtual void read_config(std::uint32_t offset, std::span<std::byte> out) = 0;
    virtual void write_config(std::uint32_t offset, std::span<const std::byte> data) = 0;

    /// Called once, right after construction and before anything else.
    virtual void attach(DeviceHost& host) = 0;
    [[nodiscard]] virtual Status activate(Activation activation) = 0;
    /// Back to the state before activate(): in-flight requests are finished or dropped, never
    /// answered after this returns. Allowed at rest too.
    virtual void reset() = 0;

    /// Lets an activated device work; also looks at every queue and raises every queue's interrupt
    /// once, since a signal may have been lost between two owners (a spurious one does no harm).
    virtual void wake() = 0;
    /// Takes nothing new, finishes what is in flight, stops timers. After return the device touches
    /// neither guest memory nor its back end. Idempotent.
    virtual void quiesce() = 0;
    /// As quiesce(), but waits no longer than `deadline` for what is in flight. False: then it is
    /// not at rest and works on as if it had not been asked.
    [[nodiscard]] virtual bool quiesce_until(std::chrono::steady_clock::time_point /*deadline*/) {
        quiesce();
        return true;
    }
    /// The queues as they stand, for saving; at rest only. Empty entries where not enabled.
    [[nodiscard]] virtual std::vector<std::optional<QueueState>> queue_states() const = 0;
    /// The device-specific section ("virtio-blk", instance given at construction).
    [[nodiscard]] virtual state::SectionType section_type() const = 0;
    [[nodiscard]] virtual state::SectionId section_id() const = 0;
    /// At rest only.
    [[nodiscard]] virtual Result<state::Saved> save() const = 0;
    /// See StateUnit; asked while the device works.
    [[nodiscard]] virtual std::string save_blocker() const = 0;
};

} // namespace godwit::virtio
