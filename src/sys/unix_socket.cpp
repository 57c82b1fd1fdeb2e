#include "sys/unix_socket.h"

#include "sys/rights_message.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <poll.h>
#include <unistd.h>

#include <algorithm>
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
    [[maybe_unused]] const std::size_t whole =
        GODWIT_TRY(send_rights(fd_, std::as_bytes(std::span(bytes)), fds));
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
    // Room for what has come and not for the largest packet: that would be mapped each time.
    ssize_t size = 0;
    do {
        size = ::recv(fd_.raw(), nullptr, 0, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
    } while (size < 0 && errno == EINTR);
    Message message;
    message.bytes.resize(std::clamp<std::size_t>(
        static_cast<std::size_t>(std::max<ssize_t>(size, 0)), 1, message_bytes_max));
    const ReceivedRights received = GODWIT_TRY(receive_rights(
        fd_, std::as_writable_bytes(std::span(message.bytes)), message.fds, message_fds_max));
    if (received.bytes_cut || received.fds_cut) {
        return Error(ErrorCode::corrupt, "a message was larger than its limit and got cut");
    }
    message.bytes.resize(received.bytes);
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
