#include "sys/stream.h"

#include <sys/socket.h>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace godwit::sys {

Result<Pipe> create_pipe() {
    std::array<int, 2> raw{};
    if (::pipe2(raw.data(), O_CLOEXEC) != 0) {
        return Error::from_errno(errno, "create a pipe");
    }
    return Pipe{.read_end = Fd(raw[0]), .write_end = Fd(raw[1])};
}

Result<std::size_t> read_some(const Fd& fd, std::span<std::byte> out) {
    ssize_t got = 0;
    do {
        got = ::read(fd.raw(), out.data(), out.size());
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        return Error::from_errno(errno, "read");
    }
    return static_cast<std::size_t>(got);
}

Result<std::size_t> write_some(const Fd& fd, std::span<const std::byte> data) {
    ssize_t done = 0;
    do {
        done = ::send(fd.raw(), data.data(), data.size(), MSG_NOSIGNAL);
        if (done < 0 && errno == ENOTSOCK) {
            done = ::write(fd.raw(), data.data(), data.size());
        }
    } while (done < 0 && errno == EINTR);
    if (done < 0) {
        return Error::from_errno(errno, "write");
    }
    return static_cast<std::size_t>(done);
}

Result<std::size_t> send_gathered(const Fd& socket, std::span<iovec> pieces) {
    msghdr header{};
    header.msg_iov = pieces.data();
    header.msg_iovlen = pieces.size();
    ssize_t done = 0;
    do {
        done = ::sendmsg(socket.raw(), &header, MSG_NOSIGNAL);
    } while (done < 0 && errno == EINTR);
    if (done < 0) {
        return Error::from_errno(errno, "send");
    }
    return static_cast<std::size_t>(done);
}

Result<bool> wait_ready(const Fd& fd, Direction direction, std::chrono::milliseconds timeout) {
    pollfd waiting{.fd = fd.raw(),
                   .events = static_cast<short>(direction == Direction::input ? POLLIN : POLLOUT),
                   .revents = 0};
    int ready = 0;
    do {
        ready = ::poll(&waiting, 1, static_cast<int>(timeout.count()));
    } while (ready < 0 && errno == EINTR);
    if (ready < 0) {
        return Error::from_errno(errno, "wait for a descriptor");
    }
    return ready > 0;
}

} // namespace godwit::sys
