#pragma once

/// One front end's conversation with one disk: what each message means. What a message asks for
/// and cannot have is an error, on which the connection ends; the device survives and serves the
/// next front end.
///
/// Thread rule: one thread, which may wait for the device; not the device's own loop.

#include "base/result.h"
#include "doors/vhost/channel.h"
#include "doors/vhost/inflight_memory.h"
#include "doors/vhost/memory_table.h"
#include "doors/vhost/rings.h"
#include "virtio/virtio_device.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace godwit::doors::vhost {

/// A conversation at rest, with copies of its descriptors.
struct SavedSession {
    std::uint64_t features = 0;
    std::uint64_t protocol_features = 0;
    struct Region {
        MemoryRegion region;
        sys::Fd object;
    };
    std::vector<Region> regions;
    std::vector<Rings::Saved> rings;
    std::optional<InflightDescription> inflight;
    sys::Fd inflight_object;
    sys::Fd backend_channel; ///< Invalid: none.
};

class Session {
  public:
    /// The device is at rest; it is again when the session goes.
    Session(virtio::VirtioDevice& device, const Channel& channel);
    /// One that a predecessor has saved: at rest until resume(). Errors leave the device at rest.
    [[nodiscard]] static Result<std::unique_ptr<Session>>
    restore(virtio::VirtioDevice& device, const Channel& channel, SavedSession saved);

    /// Does what the message says and answers it.
    [[nodiscard]] Status handle(Message message);
    /// Brings the device to rest and copies everything a successor needs. After an error, too,
    /// resume() goes on.
    [[nodiscard]] Result<SavedSession> save(sys::Moment deadline);
    /// Serves the rings that are to run.
    [[nodiscard]] Status resume();
    /// What went wrong behind the front end's back; looked at after each message and now and then.
    [[nodiscard]] bool torn() const noexcept;

  private:
    [[nodiscard]] Status negotiate(const Message& message);
    [[nodiscard]] Status change_memory(Message& message);
    [[nodiscard]] Status change_ring(Message& message);
    [[nodiscard]] Status change_ring_fd(Message& message);
    [[nodiscard]] Status configuration(const Message& message);
    [[nodiscard]] Status inflight(Message& message);
    [[nodiscard]] Status acknowledge(const Message& message);
    [[nodiscard]] Status set_table(Message& message);
    [[nodiscard]] std::uint64_t offered() const noexcept;
    [[nodiscard]] Rings::Surroundings surroundings() const noexcept;
    [[nodiscard]] bool negotiated(std::uint64_t protocol_bit) const noexcept {
        return (protocol_features_ & protocol_bit) != 0;
    }

    virtio::VirtioDevice& device_;
    const Channel& channel_;
    MemoryTable memory_;
    std::optional<InflightMemory> inflight_;
    std::uint64_t features_ = 0;
    std::uint64_t protocol_features_ = 0;
    bool answered_ = false; ///< The message at hand has its reply.
    Rings rings_;           ///< Last: it rests before memory goes.
};

} // namespace godwit::doors::vhost
