#include "virtio/testing/socket_port.h"

#include "virtio/net/net_spec.h"

#include <sys/socket.h>

#include <poll.h>

#include <array>

namespace godwit::virtio::testing {

namespace {
constexpr int patience_ms = 10'000;
}

void SocketNetwork::send(std::size_t pair, std::string_view frame) const {
    std::string packet(net_header_bytes, '\0');
    packet += frame;
    const ssize_t sent = ::send(far[pair].raw(), packet.data(), packet.size(), 0);
    GODWIT_ASSERT(sent == static_cast<ssize_t>(packet.size()));
}

std::optional<std::string> SocketNetwork::receive(std::size_t pair) const {
    pollfd ready{.fd = far[pair].raw(), .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, patience_ms) != 1) {
        return std::nullopt;
    }
    std::string packet(net_packet_bytes_max, '\0');
    const ssize_t count = ::recv(far[pair].raw(), packet.data(), packet.size(), 0);
    if (count < static_cast<ssize_t>(net_header_bytes)) {
        return std::nullopt;
    }
    return packet.substr(net_header_bytes, static_cast<std::size_t>(count) - net_header_bytes);
}

SocketPort::SocketPort(SocketNetwork& network, std::size_t pairs) : network_(network) {
    network_.far.clear();
    for (std::size_t i = 0; i < pairs; ++i) {
        std::array<int, 2> ends{};
        const int result = ::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data());
        GODWIT_ASSERT(result == 0); // a test without sockets has nothing to go on with
        near_.emplace_back(ends[0]);
        network_.far.emplace_back(ends[1]);
        GODWIT_MUST(sys::set_nonblocking(near_.back())); // a fresh socket takes it
    }
}

Status SocketPort::set_offloads(const sys::TapOffloads& offloads) {
    network_.offloads = offloads;
    return ok();
}

Status SocketPort::set_active_pairs(std::size_t count) {
    network_.active_pairs = count;
    return ok();
}

std::unique_ptr<SocketPort> SocketPort::duplicate() const {
    std::unique_ptr<SocketPort> port(new SocketPort(network_));
    for (const sys::Fd& fd : near_) {
        port->near_.push_back(GODWIT_MUST(fd.duplicate())); // far from any limit
    }
    return port;
}

} // namespace godwit::virtio::testing
