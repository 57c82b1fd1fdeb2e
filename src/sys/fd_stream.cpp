#include "sys/fd_stream.h"

#include "sys/stream.h"

#include <sys/socket.h>

#include <poll.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace godwit::sys {

namespace {

void take_fds(const msghdr& header, std::vector<Fd>& fds) {
    msghdr reading = header; // CMSG_NXTHDR wants a mutable one.
    for (cmsghdr* c = CMSG_FIRSTHDR(&reading); c != nullptr; c = CMSG_NXTHDR(&reading, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        std::vector<int> numbers((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        std::memcpy(numbers.data(), CMSG_DATA(c), numbers.size() * sizeof(int));
        for (const int number : numbers) {
            fds.emplace_back(number);
        }
    }
}

} // namespace

Result<std::size_t>
receive_with_fds(const Fd& socket, std::span<std::byte> out, std::vector<Fd>& fds) {
    iovec piece{.iov_base = out.data(), .iov_len = out.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * stream_fds_max)> control{};
    msghdr header{};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    ssize_t received = 0;
    do {
        received = ::recvmsg(socket.raw(), &header, MSG_CMSG_CLOEXEC);
    } while (received < 0 && errno == EINTR);
    if (received < 0) {
        return Error::from_errno(errno, "receive from a socket");
    }
    take_fds(header, fds);
    if (received == 0) {
        return Error(ErrorCode::peer_closed, "the other side closed the connection");
    }
    if ((header.msg_flags & MSG_CTRUNC) != 0) {
        return Error(ErrorCode::corrupt, "more descriptors arrived than can belong to a message");
    }
    return static_cast<std::size_t>(received);
}

Status
send_with_fds(const Fd& socket, std::span<const std::byte> data, std::span<const Fd* const> fds) {
    if (fds.size() > stream_fds_max || data.empty()) {
        return Error(ErrorCode::invalid_argument, "no message to send, or too many descriptors");
    }
    // iovec wants a mutable pointer although sendmsg only reads.
    iovec piece{.iov_base = const_cast<std::byte*>(data.data()), .iov_len = data.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * stream_fds_max)> control{};
    msghdr header{};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    if (!fds.empty()) {
        header.msg_control = control.data();
        header.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
        cmsghdr* rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
        std::vector<int> numbers;
        for (const Fd* fd : fds) {
            numbers.push_back(fd->raw());
        }
        std::memcpy(CMSG_DATA(rights), numbers.data(), sizeof(int) * numbers.size());
    }
    ssize_t sent = 0;
    do {
        sent = ::sendmsg(socket.raw(), &header, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) {
        return Error::from_errno(errno, "send to a socket");
    }
    std::span<const std::byte> rest = data.subspan(static_cast<std::size_t>(sent));
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
