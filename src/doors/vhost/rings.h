#pragma once

/// The rings of one session and the device that serves them. A vhost-user front end starts and
/// stops rings one by one; a VirtioDevice is activated with all it shall serve. So whatever changes
/// a ring brings the device to rest, and run() activates it anew with the rings that are to run: at
/// rest nothing is in flight, and each ring goes on where it stood.
///
/// Thread rule: one thread, but for DeviceHost, which any thread calls.

#include "base/result.h"
#include "doors/vhost/inflight_memory.h"
#include "doors/vhost/memory_table.h"
#include "doors/vhost/protocol.h"
#include "sys/clock.h"
#include "virtio/virtio_device.h"

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace godwit::doors::vhost {

class Rings final : public virtio::DeviceHost {
  public:
    /// What the session has negotiated and was given.
    struct Surroundings {
        std::uint64_t features = 0; ///< Acknowledged virtio features.
        const MemoryTable& memory;
        const InflightMemory* inflight = nullptr; ///< May be null.
    };

    /// The device is attached, and at rest whenever no rings run.
    explicit Rings(virtio::VirtioDevice& device);
    Rings(const Rings&) = delete;
    Rings& operator=(const Rings&) = delete;
    ~Rings() override;

    /// Brings the device to rest. Idempotent; every other change is made at rest.
    void rest();
    /// The same; false if that takes longer than `deadline`, and then all goes on.
    [[nodiscard]] bool rest_until(sys::Moment deadline);
    /// Serves all rings that are started and enabled, if there are any and none is served yet.
    [[nodiscard]] Status run(const Surroundings& surroundings);

    [[nodiscard]] Status set_size(const RingState& size);
    [[nodiscard]] Status set_base(const RingState& base);
    [[nodiscard]] Status set_addresses(const RingAddresses& addresses);
    [[nodiscard]] Status start(std::uint32_t index, sys::EventFd kick);
    [[nodiscard]] Status enable(std::uint32_t index, std::uint32_t wanted);
    /// Stops a ring and gives the index where it goes on.
    [[nodiscard]] Result<RingState> stop(std::uint32_t index);
    /// Where a ring's interrupts go (nowhere, if empty). Allowed while it is served.
    [[nodiscard]] Status set_call(std::uint32_t index, std::optional<sys::EventFd> call);
    [[nodiscard]] Status set_error(std::uint32_t index, std::optional<sys::EventFd> error);
    /// Where changes of the configuration are told.
    void set_backend_channel(sys::Fd socket);
    /// A ring at rest, with copies of its descriptors (invalid: there is none).
    struct Saved {
        std::uint16_t size = 0;
        std::uint16_t next_available = 0;
        std::optional<RingAddresses> addresses;
        bool enabled = false;
        sys::Fd kick;
        sys::Fd call;
        sys::Fd error;
    };
    /// At rest.
    [[nodiscard]] Result<std::vector<Saved>> save();
    [[nodiscard]] Result<sys::Fd> copy_backend_channel();
    /// As many as the device has. Nothing runs before.
    [[nodiscard]] Status restore(std::vector<Saved> saved);
    /// Whether run() can serve the rings that are to run; touches nothing.
    [[nodiscard]] Status check(const Surroundings& surroundings) const;
    /// Rings of a front end that does not negotiate protocol features are enabled from the start.
    void enable_all();

    void notify_queue(std::uint16_t queue) noexcept override;
    void notify_config() noexcept override;
    void needs_reset(const Error& reason) noexcept override;

  private:
    struct Ring {
        std::uint16_t size = 0;
        std::uint16_t next_available = 0;
        std::optional<RingAddresses> addresses;
        std::optional<sys::EventFd> kick; ///< Present: started.
        bool enabled = false;
    };
    /// Where the device's signals of a ring go.
    struct Signals {
        std::optional<sys::EventFd> call;
        std::optional<sys::EventFd> error;
    };
    void note_rest();
    [[nodiscard]] Result<Ring*> find(std::uint32_t index);
    [[nodiscard]] static Result<virtio::VirtQueue>
    open(const Ring& ring,
         const std::shared_ptr<memory::GuestMemory>& memory,
         const Surroundings& surroundings);

    [[nodiscard]] static Status keep_record(virtio::VirtQueue& queue,
                                            std::uint16_t index,
                                            const Ring& ring,
                                            const InflightMemory& inflight);

    virtio::VirtioDevice& device_;
    std::vector<Ring> rings_;
    bool running_ = false;

    std::mutex signals_mutex_;     ///< A leaf: nothing waits while it is held.
    std::vector<Signals> signals_; ///< Guarded by signals_mutex_.
    sys::Fd backend_channel_;      ///< Guarded by signals_mutex_.
};

} // namespace godwit::doors::vhost
