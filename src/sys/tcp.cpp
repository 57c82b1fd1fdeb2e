#include "sys/tcp.h"

#include <sys/socket.h>

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <cerrno>
#include <memory>

namespace godwit::sys {

namespace {
constexpr int tcp_backlog = 64;

struct FreeAddresses {
    void operator()(addrinfo* found) const noexcept { ::freeaddrinfo(found); }
};

Result<Fd> listen_at(const addrinfo& address, const std::string& name) {
    Fd fd(::socket(address.ai_family,
                   address.ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
                   address.ai_protocol));
    const int on = 1;
    if (!fd.valid() || ::setsockopt(fd.raw(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        ::bind(fd.raw(), address.ai_addr, address.ai_addrlen) != 0 ||
        ::listen(fd.raw(), tcp_backlog) != 0) {
        return Error::from_errno(errno, "listen at " + name);
    }
    return fd;
}
} // namespace

Result<TcpAddress> parse_tcp_address(const std::string& text) {
    const std::size_t colon = text.rfind(':');
    if (colon == std::string::npos || colon + 1 == text.size()) {
        return Error(ErrorCode::invalid_argument,
                     "'" + text + "' is no address: HOST:PORT, or a path with a '/' in it");
    }
    std::string host = text.substr(0, colon);
    if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
        host = host.substr(1, host.size() - 2);
    }
    return TcpAddress{.host = std::move(host), .port = text.substr(colon + 1)};
}

Result<Fd> listen_tcp(const TcpAddress& address) {
    const std::string name = address.host + ":" + address.port;
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE;
    addrinfo* raw = nullptr;
    const char* const host = address.host.empty() ? nullptr : address.host.c_str();
    const int failed = ::getaddrinfo(host, address.port.c_str(), &hints, &raw);
    if (failed != 0) {
        return Error(ErrorCode::invalid_argument, name + ": " + ::gai_strerror(failed));
    }
    const std::unique_ptr<addrinfo, FreeAddresses> found(raw);
    return listen_at(*found, name);
}

Result<std::uint16_t> local_port(const Fd& socket) {
    sockaddr_storage storage{};
    socklen_t length = sizeof(storage);
    if (::getsockname(socket.raw(), reinterpret_cast<sockaddr*>(&storage), &length) != 0) {
        return Error::from_errno(errno, "ask for a socket's address");
    }
    const void* const address = &storage;
    if (storage.ss_family == AF_INET6) {
        return ntohs(static_cast<const sockaddr_in6*>(address)->sin6_port);
    }
    return ntohs(static_cast<const sockaddr_in*>(address)->sin_port);
}

Result<Fd> accept_stream(const Fd& listener) {
    Fd fd(::accept4(listener.raw(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd.valid()) {
        return Error::from_errno(errno, "accept a connection");
    }
    // Refused on a UNIX socket, which has no such delays.
    const int on = 1;
    ::setsockopt(fd.raw(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return fd;
}

} // namespace godwit::sys
