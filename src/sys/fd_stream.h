#pragma once

/// Bytes with descriptors over a UNIX stream socket, where messages have no boundaries of their own
/// (unix_socket.h is for sockets that keep them). Any thread; one reader and one writer per socket.

#include "base/result.h"
#include "sys/fd.h"

#include <cstddef>
#include <span>
#include <vector>

namespace godwit::sys {

/// Descriptors that may come with one piece of the stream.
inline constexpr std::size_t stream_fds_max = 64;

/// Takes what is there, at most out.size() bytes, and appends the descriptors that came with it.
/// Waits on a blocking socket; peer_closed at its end, corrupt if there were too many descriptors.
[[nodiscard]] Result<std::size_t>
receive_with_fds(const Fd& socket, std::span<std::byte> out, std::vector<Fd>& fds);

/// Sends all of `data`, and `fds` (borrowed) with its first byte. Waits on a blocking socket.
[[nodiscard]] Status
send_with_fds(const Fd& socket, std::span<const std::byte> data, std::span<const Fd* const> fds);

/// Waits until `fd` can be read or has hung up; cancelled as soon as `cancel` is readable.
[[nodiscard]] Status wait_readable(const Fd& fd, const Fd& cancel);

} // namespace godwit::sys
