#pragma once

/// Messages of the vhost-user protocol as they stand on the socket (docs of QEMU,
/// docs/interop/vhost-user.rst): little-endian, packed by their order. Values only.

#include <array>
#include <cstddef>
#include <cstdint>

namespace godwit::doors::vhost {

enum class Request : std::uint32_t {
    get_features = 1,
    set_features = 2,
    set_owner = 3,
    reset_owner = 4,
    set_mem_table = 5,
    set_vring_num = 8,
    set_vring_addr = 9,
    set_vring_base = 10,
    get_vring_base = 11,
    set_vring_kick = 12,
    set_vring_call = 13,
    set_vring_err = 14,
    get_protocol_features = 15,
    set_protocol_features = 16,
    get_queue_num = 17,
    set_vring_enable = 18,
    set_backend_req_fd = 21,
    get_config = 24,
    set_config = 25,
    get_inflight_fd = 31,
    set_inflight_fd = 32,
    get_max_mem_slots = 36,
    add_mem_reg = 37,
    rem_mem_reg = 38,
};

/// What we send on the channel of SET_BACKEND_REQ_FD.
inline constexpr std::uint32_t backend_config_change = 2;

/// Virtio feature bit by which protocol features are negotiated.
inline constexpr std::uint64_t feature_protocol_features = 1ULL << 30U;

namespace protocol_feature {
inline constexpr std::uint64_t multi_queue = 1ULL << 0U;
inline constexpr std::uint64_t reply_ack = 1ULL << 3U;
inline constexpr std::uint64_t backend_requests = 1ULL << 5U;
inline constexpr std::uint64_t config = 1ULL << 9U;
inline constexpr std::uint64_t inflight = 1ULL << 12U;
inline constexpr std::uint64_t configure_mem_slots = 1ULL << 15U;
} // namespace protocol_feature

struct Header {
    std::uint32_t request = 0;
    std::uint32_t flags = 0;
    std::uint32_t bytes = 0; ///< Of the payload.
};
static_assert(sizeof(Header) == 12);

inline constexpr std::uint32_t flag_version_mask = 3;
inline constexpr std::uint32_t flag_version = 1;
inline constexpr std::uint32_t flag_reply = 4;
inline constexpr std::uint32_t flag_need_reply = 8;

/// The longest payload we take.
inline constexpr std::size_t payload_bytes_max = 1024;
/// Descriptors of one message: a memory table's.
inline constexpr std::size_t message_fds_max = 8;

struct RingState {
    std::uint32_t index = 0;
    std::uint32_t number = 0;
};
static_assert(sizeof(RingState) == 8);

/// Addresses are those of the front end's process.
struct RingAddresses {
    std::uint32_t index = 0;
    std::uint32_t flags = 0; ///< Bit 0: log writes; not offered.
    std::uint64_t descriptors = 0;
    std::uint64_t used = 0;
    std::uint64_t available = 0;
    std::uint64_t log = 0;
};
static_assert(sizeof(RingAddresses) == 40);

struct MemoryRegion {
    std::uint64_t guest_address = 0;
    std::uint64_t bytes = 0;
    std::uint64_t user_address = 0;
    std::uint64_t mapping_offset = 0;
};
static_assert(sizeof(MemoryRegion) == 32);

struct MemoryTableHead {
    std::uint32_t regions = 0;
    std::uint32_t padding = 0;
};
inline constexpr std::uint32_t table_regions_max = 8;

struct SingleRegion {
    std::uint64_t padding = 0;
    MemoryRegion region;
};
static_assert(sizeof(SingleRegion) == 40);

struct ConfigHead {
    std::uint32_t offset = 0;
    std::uint32_t bytes = 0;
    std::uint32_t flags = 0;
};
inline constexpr std::uint32_t config_bytes_max = 256;

struct InflightDescription {
    std::uint64_t bytes = 0;
    std::uint64_t offset = 0;
    std::uint16_t queues = 0;
    std::uint16_t queue_size = 0;
    std::uint32_t padding = 0; ///< Not on the socket.
};
inline constexpr std::size_t inflight_description_bytes = 20;

/// Ring messages that carry a descriptor: the ring's number, and whether there is none.
inline constexpr std::uint64_t ring_index_mask = 0xff;
inline constexpr std::uint64_t ring_no_fd = 0x100;

} // namespace godwit::doors::vhost
