#pragma once

/// Numbers of the virtio network device (virtio 1.2, section 5.1), named as there.

#include "sys/tap.h"

#include <cstddef>
#include <cstdint>

namespace godwit::virtio {

inline constexpr std::uint64_t net_f_csum = 1ULL << 0U;
inline constexpr std::uint64_t net_f_guest_csum = 1ULL << 1U;
inline constexpr std::uint64_t net_f_mtu = 1ULL << 3U;
inline constexpr std::uint64_t net_f_mac = 1ULL << 5U;
inline constexpr std::uint64_t net_f_guest_tso4 = 1ULL << 7U;
inline constexpr std::uint64_t net_f_guest_tso6 = 1ULL << 8U;
inline constexpr std::uint64_t net_f_guest_ecn = 1ULL << 9U;
inline constexpr std::uint64_t net_f_host_tso4 = 1ULL << 11U;
inline constexpr std::uint64_t net_f_host_tso6 = 1ULL << 12U;
inline constexpr std::uint64_t net_f_host_ecn = 1ULL << 13U;
inline constexpr std::uint64_t net_f_mrg_rxbuf = 1ULL << 15U;
inline constexpr std::uint64_t net_f_status = 1ULL << 16U;
inline constexpr std::uint64_t net_f_ctrl_vq = 1ULL << 17U;
inline constexpr std::uint64_t net_f_guest_announce = 1ULL << 21U;
inline constexpr std::uint64_t net_f_mq = 1ULL << 22U;

inline constexpr std::uint16_t net_s_link_up = 1;
inline constexpr std::uint16_t net_s_announce = 2;

/// Commands of the control queue (5.1.6.5).
inline constexpr std::uint8_t net_ctrl_announce = 3;
inline constexpr std::uint8_t net_ctrl_announce_ack = 0;
inline constexpr std::uint8_t net_ctrl_mq = 4;
inline constexpr std::uint8_t net_ctrl_mq_vq_pairs_set = 0;
inline constexpr std::uint8_t net_ok = 0;
inline constexpr std::uint8_t net_err = 1;

/// Layout of struct virtio_net_config.
struct NetConfig {
    std::uint8_t mac[6] = {};
    std::uint16_t status = 0;
    std::uint16_t max_virtqueue_pairs = 0;
    std::uint16_t mtu = 0;
};
static_assert(sizeof(NetConfig) == 12);

/// struct virtio_net_hdr with num_buffers, in front of every packet.
inline constexpr std::size_t net_header_bytes = sys::tap_header_bytes;
inline constexpr std::size_t net_num_buffers_offset = 10;
inline constexpr std::size_t ethernet_header_bytes = 14;
/// The longest packet either way with its header: a 64 KiB segment, Ethernet and VLAN headers, and
/// one byte more, so that a full buffer tells of a packet that was cut.
inline constexpr std::size_t net_packet_bytes_max =
    net_header_bytes + ethernet_header_bytes + 8 + 65536 + 1;

inline constexpr std::uint16_t net_queue_size = 256;
inline constexpr std::size_t net_queue_pairs_max = sys::tap_queues_max;

} // namespace godwit::virtio
