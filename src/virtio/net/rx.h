#pragma once

/// The receive queue of a network device: packets from a port straight into guest buffers.
///
/// A packet is read once, by scatter input over the buffers at hand plus a private overflow buffer,
/// because nothing tells its length before. Usually it fits and was copied by the kernel only. The
/// part that went over is copied into further buffers; if the driver has not offered enough of
/// them, the whole packet is held here (and saved with the device) until it has, so a packet that
/// was read is delivered, held, or dropped and counted because it cannot fit.
///
/// Buffers are taken from the ring ahead of need; give_back() returns them before the queue is
/// saved. Thread rule: the device's loop; at rest also the control thread.

#include "base/result.h"
#include "sys/fd.h"
#include "virtio/net/net_counters.h"
#include "virtio/virt_queue.h"

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace godwit::virtio {

/// Whether a packet may go over several chains (VIRTIO_NET_F_MRG_RXBUF).
enum class RxBuffers : std::uint8_t { one_chain, mergeable };

class RxQueue {
  public:
    /// `held` is a packet an earlier owner had read and could not deliver; empty if there is none.
    RxQueue(VirtQueue queue, RxBuffers buffers, const std::string& held);

    /// Why receive() came back.
    enum class Stop : std::uint8_t {
        no_packets,
        no_buffers, ///< The driver must offer more before anything can go on.
        turn_over,  ///< The budget of one wake-up is spent; there may be more.
        port_gone,
    };
    /// Delivers packets from `port` until one of the above; an error is a broken rule of the
    /// driver.
    [[nodiscard]] Result<Stop> receive(const sys::Fd& port, NetDirectionTally& tally);

    /// True while a packet waits for buffers.
    [[nodiscard]] bool holding() const noexcept { return held_bytes_ > 0; }
    void drop_held(NetDirectionTally& tally) noexcept;
    [[nodiscard]] std::string held() const;

    /// Returns the buffers taken ahead to the ring.
    void give_back() noexcept;
    [[nodiscard]] VirtQueue& queue() noexcept { return queue_; }
    [[nodiscard]] const VirtQueue& queue() const noexcept { return queue_; }

  private:
    [[nodiscard]] Chain& taken(std::size_t i) noexcept {
        return chains_[(first_ + i) & (chains_.size() - 1)];
    }
    [[nodiscard]] Result<bool> take_buffers(std::size_t bytes);
    [[nodiscard]] std::size_t build_segments();
    [[nodiscard]] Result<Stop> deliver_held(NetDirectionTally& tally);
    [[nodiscard]] Status accept(std::size_t bytes, std::size_t room, NetDirectionTally& tally);
    void hold(std::size_t bytes, std::size_t room);
    void deliver(std::size_t bytes, NetDirectionTally& tally);
    void copy_to_chains(std::size_t offset, std::span<const std::byte> data);
    void copy_from_chains(std::span<std::byte> out);

    VirtQueue queue_;
    RxBuffers buffers_;
    std::vector<Chain> chains_; ///< A circle of as many as the queue has.
    std::size_t first_ = 0;
    std::size_t count_ = 0;
    std::size_t room_bytes_ = 0; ///< In the chains taken.
    /// How much room a read gets: the longest packet seen so far.
    std::size_t wanted_bytes_;
    std::vector<iovec> segments_;
    std::vector<VirtQueue::Completion> completions_;
    std::unique_ptr<std::byte[]> overflow_; ///< net_packet_bytes_max; also where a packet is held.
    std::size_t held_bytes_ = 0;
};

} // namespace godwit::virtio
