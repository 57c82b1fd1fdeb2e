#include "sys/rights_message.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace godwit::sys {

namespace {

using ControlBytes = std::array<char, CMSG_SPACE(sizeof(int) * rights_max)>;

void pack(std::span<const Fd* const> fds, msghdr& header) {
    header.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
    cmsghdr* const rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    std::byte* to = reinterpret_cast<std::byte*>(CMSG_DATA(rights));
    for (const Fd* fd : fds) {
        const int number = fd->raw();
        std::memcpy(to, &number, sizeof(number));
        to += sizeof(number);
    }
}

void unpack(msghdr& header, std::vector<Fd>& fds) {
    for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
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
send_rights(const Fd& socket, std::span<const std::byte> data, std::span<const Fd* const> fds) {
    if (fds.size() > rights_max) {
        return Error(ErrorCode::resource_exhausted, "too many descriptors for one message");
    }
    // iovec wants a mutable pointer although sendmsg only reads.
    iovec piece{.iov_base = const_cast<std::byte*>(data.data()), .iov_len = data.size()};
    alignas(cmsghdr) ControlBytes control{};
    msghdr header{};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    if (!fds.empty()) {
        header.msg_control = control.data();
        pack(fds, header);
    }
    ssize_t sent = 0;
    do {
        sent = ::sendmsg(socket.raw(), &header, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) {
        return Error::from_errno(errno, "send to a socket");
    }
    return static_cast<std::size_t>(sent);
}

Result<ReceivedRights> receive_rights(const Fd& socket,
                                      std::span<std::byte> out,
                                      std::vector<Fd>& fds,
                                      std::size_t fds_limit) {
    iovec piece{.iov_base = out.data(), .iov_len = out.size()};
    alignas(cmsghdr) ControlBytes control{};
    msghdr header{};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(sizeof(int) * std::min(fds_limit, rights_max));
    ssize_t received = 0;
    do {
        received = ::recvmsg(socket.raw(), &header, MSG_CMSG_CLOEXEC);
    } while (received < 0 && errno == EINTR);
    if (received < 0) {
        return Error::from_errno(errno, "receive from a socket");
    }
    unpack(header, fds);
    if (received == 0) {
        return Error(ErrorCode::peer_closed, "the other side closed the connection");
    }
    return ReceivedRights{.bytes = static_cast<std::size_t>(received),
                          .bytes_cut = (header.msg_flags & MSG_TRUNC) != 0,
                          .fds_cut = (header.msg_flags & MSG_CTRUNC) != 0};
}

} // namespace godwit::sys
