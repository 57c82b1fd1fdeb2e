#pragma once

/// The transmit queue of a network device: packets straight from guest memory to a port.
///
/// The kernel checks offload headers; lengths are checked here. A packet the kernel refuses is
/// dropped and counted. Thread rule: the device's loop; at rest also the control thread.

#include "base/result.h"
#include "sys/fd.h"
#include "virtio/net/net_counters.h"
#include "virtio/virt_queue.h"

#include <cstdint>
#include <utility>

namespace godwit::virtio {

class TxQueue {
  public:
    explicit TxQueue(VirtQueue queue) : queue_(std::move(queue)) {}

    /// Why transmit() came back.
    enum class Stop : std::uint8_t {
        no_packets,
        no_room,   ///< The port takes nothing now; the packet is still in the ring.
        turn_over, ///< The budget of one wake-up is spent; there may be more.
    };
    [[nodiscard]] Result<Stop> transmit(const sys::Fd& port, NetDirectionTally& tally);

    [[nodiscard]] VirtQueue& queue() noexcept { return queue_; }
    [[nodiscard]] const VirtQueue& queue() const noexcept { return queue_; }

  private:
    VirtQueue queue_;
    Chain chain_;
};

} // namespace godwit::virtio
