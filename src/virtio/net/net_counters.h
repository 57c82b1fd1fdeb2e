#pragma once

/// What a network device has moved and dropped since this process took it. Written by the device's
/// loop, read by any thread.

#include <atomic>
#include <cstdint>

namespace godwit::virtio {

/// One direction of one queue pair. `bytes` are Ethernet frames without the virtio header.
struct NetDirectionCounters {
    std::uint64_t packets = 0;
    std::uint64_t bytes = 0;
    std::uint64_t dropped = 0;
};

struct NetCounters {
    NetDirectionCounters received; ///< By the guest.
    NetDirectionCounters sent;     ///< By the guest.
};

class NetDirectionTally {
  public:
    void moved(std::uint64_t frame_bytes) noexcept {
        add(packets_, 1);
        add(bytes_, frame_bytes);
    }
    void dropped() noexcept { add(dropped_, 1); }
    [[nodiscard]] NetDirectionCounters read() const noexcept {
        return {.packets = packets_.load(std::memory_order_relaxed),
                .bytes = bytes_.load(std::memory_order_relaxed),
                .dropped = dropped_.load(std::memory_order_relaxed)};
    }

  private:
    /// One writer: a plain load and store is enough and cheaper than a locked addition.
    static void add(std::atomic<std::uint64_t>& counter, std::uint64_t amount) noexcept {
        counter.store(counter.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
    }
    std::atomic<std::uint64_t> packets_{0};
    std::atomic<std::uint64_t> bytes_{0};
    std::atomic<std::uint64_t> dropped_{0};
};

} // namespace godwit::virtio
