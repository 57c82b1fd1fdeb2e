#include "sys/unix_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace godwit::sys {

namespace {

Result<sockaddr_un> address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof(address.sun_path)) {
        return Error(ErrorCode::invalid_argument,
                     "the socket path '" + path + "' is longer than " +
                         std::to_string(sizeof(address.sun_path) - 1) + " bytes");
    }
    std::memcpy(address.sun_path, path.data(), path.size());
    return address;
}

Result<Fd> connect_to(const std::string& path, int type) {
    const sockaddr_un address = GODWIT_TRY(address_of(path));
    Fd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    if (!fd.valid()) {
        return Error::from_errno(errno, "create a socket");
    }
    if (::connect(fd.raw(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
        return Error::from_errno(errno, "connect to '" + path + "'");
    }
    return fd;
}

} // namespace

Result<std::pair<MessageSocket, MessageSocket>> MessageSocket::pair() {
    std::array<int, 2> raw{};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, raw.data()) != 0) {
        return Error::from_errno(errno, "create a socket pair");
    }
    return std::pair(MessageSocket(Fd(raw[0])), MessageSocket(Fd(raw[1])));
}

Result<MessageSocket> MessageSocket::connect(const std::string& path) {
    return MessageSocket(GODWIT_TRY(connect_to(path, SOCK_SEQPACKET)));
}

Status MessageSocket::send(std::string_view bytes, std::span<const Fd* const> fds) const {
    if (bytes.size() > message_bytes_max || fds.size() > message_fds_max) {
        return Error(ErrorCode::resource_exhausted, "a message is larger than its limit");
    }
    // iovec wants a mutable pointer although sendmsg only reads.
    iovec piece{.iov_base = const_cast<char*>(bytes.data()), .iov_len = bytes.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * message_fds_max)> control{};
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
        sent = ::sendmsg(fd_.raw(), &header, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) {
        return Error::from_errno(errno, "send a message");
    }
    return ok();
}

Status MessageSocket::wait_readable(std::chrono::milliseconds timeout, const Fd& cancel) const {
    std::array<pollfd, 2> waiting{{{.fd = fd_.raw(), .events = POLLIN, .revents = 0},
                                   {.fd = cancel.raw(), .events = POLLIN, .revents = 0}}};
    const auto end = std::chrono::steady_clock::now() + timeout;
    for (;;) {
        const auto left =
            std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
        const int ready = ::poll(waiting.data(),
                                 waiting.size(),
                                 static_cast<int>(std::max<std::int64_t>(left.count(), 0)));
        if (ready < 0 && errno != EINTR) {
            return Error::from_errno(errno, "wait for a message");
        }
        if (ready == 0) {
            return Error(ErrorCode::timeout,
                         "no message arrived within " + std::to_string(timeout.count()) + " ms");
        }
        if (ready > 0) {
            return waiting[1].revents != 0 ? Error(ErrorCode::cancelled, "cancelled on request")
                                           : Status();
        }
    }
}

Result<Message> MessageSocket::receive(std::chrono::milliseconds timeout) const {
    pollfd waiting{.fd = fd_.raw(), .events = POLLIN, .revents = 0};
    int ready = 0;
    do {
        ready = ::poll(&waiting, 1, static_cast<int>(timeout.count()));
    } while (ready < 0 && errno == EINTR);
    if (ready < 0) {
        return Error::from_errno(errno, "wait for a message");
    }
    if (ready == 0) {
        return Error(ErrorCode::timeout,
                     "no message arrived within " + std::to_string(timeout.count()) + " ms");
    }
    Message message;
    message.bytes.resize(message_bytes_max);
    iovec piece{.iov_base = message.bytes.data(), .iov_len = message.bytes.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * message_fds_max)> control{};
    msghdr header{};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    ssize_t received = 0;
    do {
        received = ::recvmsg(fd_.raw(), &header, MSG_CMSG_CLOEXEC);
    } while (received < 0 && errno == EINTR);
    if (received < 0) {
        return Error::from_errno(errno, "receive a message");
    }
    for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        const std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        std::vector<int> numbers(count);
        std::memcpy(numbers.data(), CMSG_DATA(c), count * sizeof(int));
        for (const int number : numbers) {
            message.fds.emplace_back(number);
        }
    }
    if (received == 0) {
        return Error(ErrorCode::peer_closed, "the other side closed the connection");
    }
    if ((header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
        return Error(ErrorCode::corrupt, "a message was larger than its limit and got cut");
    }
    message.bytes.resize(static_cast<std::size_t>(received));
    return message;
}

Result<PeerCredentials> MessageSocket::peer() const {
    ucred credentials{};
    socklen_t length = sizeof(credentials);
    if (::getsockopt(fd_.raw(), SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
        return Error::from_errno(errno, "ask who the peer is");
    }
    return PeerCredentials{.pid = credentials.pid, .uid = credentials.uid, .gid = credentials.gid};
}

namespace {

Result<std::uint64_t> inode_of(const std::string& path) {
    struct stat info{};
    if (::stat(path.c_str(), &info) != 0) {
        return Error::from_errno(errno, "look at '" + path + "'");
    }
    return static_cast<std::uint64_t>(info.st_ino);
}

} // namespace

namespace {

/// Bound under a name nobody knows. Whoever fails after it removes that name.
Result<Fd> bind_at(const std::string& temporary, const std::string& path, SocketKind kind) {
    const sockaddr_un address = GODWIT_TRY(address_of(temporary));
    const int type = kind == SocketKind::messages ? SOCK_SEQPACKET : SOCK_STREAM;
    Fd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd.valid()) {
        return Error::from_errno(errno, "create a socket");
    }
    ::unlink(temporary.c_str());
    if (::bind(fd.raw(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
        return Error::from_errno(errno, "bind a socket to '" + path + "'");
    }
    return fd;
}

constexpr int listen_backlog = 64;

} // namespace

Result<Listener> Listener::create(const std::string& path, SocketKind kind, unsigned mode) {
    const std::string temporary = path + "." + std::to_string(::getpid());
    Fd fd = GODWIT_TRY(bind_at(temporary, path, kind));
    // It listens before anybody can find it.
    if (::chmod(temporary.c_str(), mode) != 0 || ::listen(fd.raw(), listen_backlog) != 0 ||
        ::rename(temporary.c_str(), path.c_str()) != 0) {
        const int os_errno = errno;
        ::unlink(temporary.c_str());
        return Error::from_errno(os_errno, "listen on '" + path + "'");
    }
    const std::uint64_t inode = GODWIT_TRY(inode_of(path));
    return Listener(std::move(fd), path, inode);
}

Result<Fd> Listener::bind(const std::string& path, SocketKind kind, unsigned mode) {
    const std::string temporary = path + "." + std::to_string(::getpid());
    Fd fd = GODWIT_TRY(bind_at(temporary, path, kind));
    if (::chmod(temporary.c_str(), mode) != 0 || ::rename(temporary.c_str(), path.c_str()) != 0) {
        const int os_errno = errno;
        ::unlink(temporary.c_str());
        return Error::from_errno(os_errno, "bind a socket to '" + path + "'");
    }
    return fd;
}

Result<Listener> Listener::listen(Fd bound, const std::string& path) {
    if (::listen(bound.raw(), listen_backlog) != 0) {
        return Error::from_errno(errno, "listen on '" + path + "'");
    }
    // Zero is no inode: the path may not be ours to see, and is then not ours to remove.
    return Listener(std::move(bound), path, inode_of(path).value_or(0));
}

void Listener::find_path() noexcept {
    inode_ = inode_of(path_).value_or(0);
}

Listener::Listener(Listener&& other) noexcept
    : fd_(std::move(other.fd_)), path_(std::exchange(other.path_, {})), inode_(other.inode_) {}

Listener& Listener::operator=(Listener&& other) noexcept {
    if (this != &other) {
        remove_path();
        fd_ = std::move(other.fd_);
        path_ = std::exchange(other.path_, {});
        inode_ = other.inode_;
    }
    return *this;
}

Listener::~Listener() {
    remove_path();
}

void Listener::remove_path() noexcept {
    if (path_.empty()) {
        return;
    }
    const Result<std::uint64_t> inode = inode_of(path_);
    if (inode.has_value() && *inode == inode_) {
        ::unlink(path_.c_str());
    }
    path_.clear();
}

Result<Fd> Listener::accept() const {
    Fd fd(::accept4(fd_.raw(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!fd.valid()) {
        return Error::from_errno(errno, "accept a connection");
    }
    return fd;
}

Result<Fd> connect_stream(const std::string& path) {
    return connect_to(path, SOCK_STREAM);
}

} // namespace godwit::sys
