#pragma once

/// One sendmsg() or recvmsg() on a UNIX socket with descriptors beside the bytes (SCM_RIGHTS,
/// unix(7)). What unix_socket.h and fd_stream.h are made of; nobody else includes it.

#include "base/result.h"
#include "sys/fd.h"

#include <cstddef>
#include <span>
#include <vector>

namespace godwit::sys {

/// SCM_MAX_FD (include/net/scm.h).
inline constexpr std::size_t rights_max = 253;

/// Sends `data`, or on a stream the beginning of it, and `fds` (borrowed, at most rights_max); how
/// many bytes went.
[[nodiscard]] Result<std::size_t>
send_rights(const Fd& socket, std::span<const std::byte> data, std::span<const Fd* const> fds);

struct ReceivedRights {
    std::size_t bytes = 0;
    bool bytes_cut = false; ///< The packet was larger than `out`.
    bool fds_cut = false;   ///< More descriptors came than were wanted; the kernel closed them.
};
/// Takes bytes into `out` and appends at most `fds_limit` (up to rights_max) descriptors to `fds`.
/// peer_closed at the end of the connection.
[[nodiscard]] Result<ReceivedRights> receive_rights(const Fd& socket,
                                                    std::span<std::byte> out,
                                                    std::vector<Fd>& fds,
                                                    std::size_t fds_limit);

} // namespace godwit::sys
