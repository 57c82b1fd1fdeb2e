#include "sys/fd_stream.h"

#include "sys/rights_message.h"
#include "sys/stream.h"

#include <poll.h>

#include <array>
#include <cerrno>

namespace godwit::sys {

Result<std::size_t>
receive_with_fds(const Fd& socket, std::span<std::byte> out, std::vector<Fd>& fds) {
    const ReceivedRights received = GODWIT_TRY(receive_rights(socket, out, fds, stream_fds_max));
    if (received.fds_cut) {
        return Error(ErrorCode::corrupt, "more descriptors arrived than can belong to a message");
    }
    return received.bytes;
}

Status
send_with_fds(const Fd& socket, std::span<const std::byte> data, std::span<const Fd* const> fds) {
    if (fds.size() > stream_fds_max || data.empty()) {
        return Error(ErrorCode::invalid_argument, "no message to send, or too many descriptors");
    }
    std::span<const std::byte> rest = data.subspan(GODWIT_TRY(send_rights(socket, data, fds)));
    while (!rest.empty()) {
        rest = rest.subspan(GODWIT_TRY(write_some(socket, rest)));
    }
    return ok();
}

Status wait_readable(const Fd& fd, const Fd& cancel) {
    std::array<pollfd, 2> waiting{{{.fd = fd.raw(), .events = POLLIN, .revents = 0},
                                   {.fd = cancel.raw(), .events = POLLIN, .revents = 0}}};
    int ready = 0;
    do {
        ready = ::poll(waiting.data(), waiting.size(), -1);
    } while (ready < 0 && errno == EINTR);
    if (ready < 0) {
        return Error::from_errno(errno, "wait for a descriptor");
    }
    return waiting[1].revents != 0 ? Error(ErrorCode::cancelled, "cancelled on request") : Status();
}

} // namespace godwit::sys
