#pragma once

/// Numbers of the NBD protocol (NetworkBlockDevice/nbd, doc/proto.md) and big-endian bytes. Values
/// only.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace godwit::doors::nbd {

inline constexpr std::uint64_t magic_greeting = 0x4e42444d41474943; // NBDMAGIC
inline constexpr std::uint64_t magic_option = 0x49484156454F5054;   // IHAVEOPT
inline constexpr std::uint64_t magic_option_reply = 0x3e889045565a9;
inline constexpr std::uint32_t magic_request = 0x25609513;
inline constexpr std::uint32_t magic_simple_reply = 0x67446698;
inline constexpr std::uint32_t magic_structured_reply = 0x668e33ef;

/// Handshake flags of both sides.
inline constexpr std::uint16_t fixed_newstyle = 1;
inline constexpr std::uint16_t no_zeroes = 2;

enum class Option : std::uint32_t {
    export_name = 1,
    abort = 2,
    list = 3,
    start_tls = 5,
    info = 6,
    go = 7,
    structured_reply = 8,
    list_meta_context = 9,
    set_meta_context = 10,
};

enum class Answer : std::uint32_t {
    ack = 1,
    server = 2,
    info = 3,
    meta_context = 4,
    unsupported = (1U << 31U) + 1,
    policy = (1U << 31U) + 2,
    invalid = (1U << 31U) + 3,
    unknown = (1U << 31U) + 6,
};

inline constexpr std::uint16_t info_export = 0;
inline constexpr std::uint16_t info_name = 1;
inline constexpr std::uint16_t info_block_size = 3;

namespace transmission_flag {
inline constexpr std::uint16_t has_flags = 1U << 0U;
inline constexpr std::uint16_t read_only = 1U << 1U;
inline constexpr std::uint16_t send_flush = 1U << 2U;
inline constexpr std::uint16_t send_fua = 1U << 3U;
inline constexpr std::uint16_t send_trim = 1U << 5U;
inline constexpr std::uint16_t send_write_zeroes = 1U << 6U;
inline constexpr std::uint16_t can_multi_conn = 1U << 8U;
} // namespace transmission_flag

enum class CommandType : std::uint16_t {
    read = 0,
    write = 1,
    disconnect = 2,
    flush = 3,
    trim = 4,
    write_zeroes = 6,
    block_status = 7,
};

namespace command_flag {
inline constexpr std::uint16_t fua = 1U << 0U;
inline constexpr std::uint16_t no_hole = 1U << 1U;
inline constexpr std::uint16_t request_one = 1U << 3U;
} // namespace command_flag

inline constexpr std::uint16_t chunk_done = 1;
inline constexpr std::uint16_t chunk_offset_data = 1;
inline constexpr std::uint16_t chunk_block_status = 5;
inline constexpr std::uint16_t chunk_error = (1U << 15U) + 1;

inline constexpr std::uint32_t allocation_context_id = 1;
inline constexpr std::string_view allocation_context = "base:allocation";
inline constexpr std::uint32_t state_hole = 1;
inline constexpr std::uint32_t state_zero = 2;

/// Error numbers on the socket.
enum class Failure : std::uint32_t {
    none = 0,
    not_permitted = 1,
    io = 5,
    invalid = 22,
    no_space = 28,
};

inline constexpr std::size_t request_bytes = 28;
/// Payload of one read or write.
inline constexpr std::uint32_t payload_bytes_max = 32U << 20U;
/// Data of one option: two names and some queries.
inline constexpr std::uint32_t option_bytes_max = 16 * 1024;
inline constexpr std::uint32_t name_bytes_max = 4096;
inline constexpr std::uint32_t options_max = 64;

template <typename T>
void put(std::vector<std::byte>& out, T value) {
    for (std::size_t i = sizeof(T); i-- > 0;) {
        out.push_back(static_cast<std::byte>(value >> (8 * i)));
    }
}
inline void put(std::vector<std::byte>& out, std::string_view text) {
    const auto bytes = std::as_bytes(std::span(text));
    out.insert(out.end(), bytes.begin(), bytes.end());
}
/// The big-endian number at `at`, which lies within `from` with all its bytes.
template <typename T>
[[nodiscard]] T get(std::span<const std::byte> from, std::size_t at) {
    T value = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) {
        value = static_cast<T>(static_cast<T>(value << 8U) | std::to_integer<T>(from[at + i]));
    }
    return value;
}

} // namespace godwit::doors::nbd
