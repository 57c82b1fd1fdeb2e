#pragma once

/// Tap interfaces of the host: opening an existing one, its offloads, and packets in and out.
///
/// A Tap owns one descriptor per queue pair, each carrying whole Ethernet frames behind a 12-byte
/// virtio-net header. It never creates an interface: that is the operator's decision. The
/// descriptors may move to another process (take(), adopt()); the interface's settings stay with
/// them, so adopting changes nothing. Thread rule: one thread at a time; packets of different
/// queues on any threads.

#include "base/result.h"
#include "sys/fd.h"

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace godwit::sys {

inline constexpr std::size_t tap_queues_max = 8;
/// Bytes in front of each frame: struct virtio_net_hdr_v1.
inline constexpr std::size_t tap_header_bytes = 12;

/// What the reader of a tap accepts: frames without checksum, segments larger than the MTU.
struct TapOffloads {
    bool checksum = false;
    bool tso4 = false; ///< Needs checksum, as do the next two.
    bool tso6 = false;
    bool ecn = false;
    friend bool operator==(const TapOffloads&, const TapOffloads&) = default;
};

class Tap {
  public:
    /// Opens `queues` (1..tap_queues_max) queues of the interface `name`. not_found if there is no
    /// such interface, busy if another process holds it, permission_denied, invalid_argument for a
    /// name that cannot be, or an interface that is no tap or has not that many queues. All
    /// offloads are off.
    [[nodiscard]] static Result<Tap> open(const std::string& name, std::size_t queues);
    /// Takes over the descriptors of an opened tap, in queue order; corrupt if they are none.
    [[nodiscard]] static Result<Tap> adopt(std::vector<Fd> queues);

    [[nodiscard]] std::size_t queues() const noexcept { return queues_.size(); }
    [[nodiscard]] const Fd& queue(std::size_t index) const { return queues_[index]; }
    /// The interface's name in the network namespace of this process.
    [[nodiscard]] Result<std::string> name() const;
    [[nodiscard]] Status set_offloads(const TapOffloads& offloads) const;
    /// The kernel spreads frames over the first `count` queues (1..queues()) only.
    [[nodiscard]] Status set_active_queues(std::size_t count) const;
    /// Gives the descriptors up, in queue order.
    [[nodiscard]] std::vector<Fd> take() && noexcept { return std::move(queues_); }

  private:
    explicit Tap(std::vector<Fd> queues) noexcept : queues_(std::move(queues)) {}
    std::vector<Fd> queues_;
};

/// What became of one packet; no Error, because this is once per packet.
enum class PacketOutcome : std::uint8_t {
    done,        ///< `bytes` went over.
    would_block, ///< Nothing there, or no room.
    refused,     ///< This packet only: the kernel does not like it, or the interface is down.
    gone,        ///< The interface or the peer is gone for good.
};
struct PacketResult {
    PacketOutcome outcome = PacketOutcome::done;
    std::size_t bytes = 0;
};

inline constexpr std::size_t packet_segments_max = 1024; // UIO_MAXIOV

/// One packet from or to a non-blocking packet descriptor (a tap queue, or a SEQPACKET socket in
/// tests). At most packet_segments_max segments. A read packet longer than the segments is cut.
[[nodiscard]] PacketResult read_packet(const Fd& fd, std::span<const iovec> into) noexcept;
[[nodiscard]] PacketResult write_packet(const Fd& fd, std::span<const iovec> from) noexcept;

} // namespace godwit::sys
