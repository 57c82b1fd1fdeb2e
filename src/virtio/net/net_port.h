#pragma once

/// Where a network device's packets come from and go to: one packet descriptor per queue pair.
///
/// Packets carry the 12-byte virtio-net header. TapPort is the real one; tests bring sockets.
/// Thread rule: the device's loop.

#include "base/result.h"
#include "sys/fd.h"
#include "sys/tap.h"

#include <cstddef>
#include <utility>

namespace godwit::virtio {

class NetPort {
  public:
    NetPort() = default;
    NetPort(const NetPort&) = delete;
    NetPort& operator=(const NetPort&) = delete;
    virtual ~NetPort() = default;
    /// Queue pairs, fixed; 1..net_queue_pairs_max.
    [[nodiscard]] virtual std::size_t pairs() const noexcept = 0;
    /// The non-blocking packet descriptor of a pair; lives as long as the port.
    [[nodiscard]] virtual const sys::Fd& fd(std::size_t pair) const = 0;
    /// What the guest accepts in received packets. Idempotent.
    [[nodiscard]] virtual Status set_offloads(const sys::TapOffloads& offloads) = 0;
    /// Packets are received on the first `count` pairs only. Idempotent.
    [[nodiscard]] virtual Status set_active_pairs(std::size_t count) = 0;
};

class TapPort final : public NetPort {
  public:
    explicit TapPort(sys::Tap tap) noexcept : tap_(std::move(tap)) {}
    [[nodiscard]] std::size_t pairs() const noexcept override { return tap_.queues(); }
    [[nodiscard]] const sys::Fd& fd(std::size_t pair) const override { return tap_.queue(pair); }
    [[nodiscard]] Status set_offloads(const sys::TapOffloads& offloads) override {
        return tap_.set_offloads(offloads);
    }
    [[nodiscard]] Status set_active_pairs(std::size_t count) override {
        return tap_.set_active_queues(count);
    }
    [[nodiscard]] const sys::Tap& tap() const noexcept { return tap_; }

  private:
    sys::Tap tap_;
};

} // namespace godwit::virtio
