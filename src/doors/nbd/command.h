#pragma once

/// The second half of an NBD connection: what a client asks for, and how it is answered. Pure.

#include "base/result.h"
#include "block/block_device.h"
#include "doors/nbd/protocol.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace godwit::doors::nbd {

struct Command {
    CommandType type = CommandType::read;
    std::uint16_t flags = 0;
    std::uint64_t cookie = 0;
    std::uint64_t offset = 0;
    std::uint32_t bytes = 0;

    /// Bytes that follow the request on the socket.
    [[nodiscard]] std::uint32_t payload_bytes() const noexcept {
        return type == CommandType::write ? bytes : 0;
    }
};

/// From request_bytes bytes. An error (a wrong magic number, a payload beyond the limit) means that
/// what follows cannot be understood: the connection ends.
[[nodiscard]] Result<Command> read_command(std::span<const std::byte> in);

/// Fills the disk's request for everything but block status and disconnect, without its segments;
/// a failure is the answer instead.
[[nodiscard]] Failure to_request(const Command& command,
                                 const block::BlockGeometry& geometry,
                                 block::BlockRequest& request);
/// Whether a block status can be asked for there.
[[nodiscard]] Failure check_status(const Command& command, const block::BlockGeometry& geometry);

/// What stands before the data of an answer, or is all of it.
struct ReplyHead {
    std::array<std::byte, 32> bytes{};
    std::size_t size = 0;
};
enum class ReplyForm : std::uint8_t { simple, structured };
/// For a read that succeeded; `command.bytes` bytes of data follow.
[[nodiscard]] ReplyHead read_reply(const Command& command, ReplyForm form);
/// For everything else, and for every failure.
[[nodiscard]] ReplyHead plain_reply(const Command& command, ReplyForm form, Failure failure);
/// `extents` follow, as many bytes of (length, state) pairs.
[[nodiscard]] ReplyHead status_reply(const Command& command, std::uint32_t extents_bytes);

} // namespace godwit::doors::nbd
