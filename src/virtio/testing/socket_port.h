#pragma once

/// A network device's port for tests: a socket pair per queue pair, with the test as the network at
/// the far ends. Whole packets, like a tap. It remembers what the device asked of it.

#include "virtio/net/net_port.h"

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace godwit::virtio::testing {

/// The far ends and what was asked; outlives the port.
struct SocketNetwork {
    std::vector<sys::Fd> far;
    sys::TapOffloads offloads;
    std::size_t active_pairs = 0;

    /// Sends a packet (12-byte header of zeroes, then `frame`) to the device.
    void send(std::size_t pair, std::string_view frame) const;
    /// The frame of the next packet from the device; empty if none comes within ten seconds.
    [[nodiscard]] std::optional<std::string> receive(std::size_t pair) const;
};

class SocketPort final : public NetPort {
  public:
    SocketPort(SocketNetwork& network, std::size_t pairs);
    [[nodiscard]] std::size_t pairs() const noexcept override { return near_.size(); }
    [[nodiscard]] const sys::Fd& fd(std::size_t pair) const override { return near_[pair]; }
    [[nodiscard]] Status set_offloads(const sys::TapOffloads& offloads) override;
    [[nodiscard]] Status set_active_pairs(std::size_t count) override;
    /// A second port on the same sockets, as a successor process would have.
    [[nodiscard]] std::unique_ptr<SocketPort> duplicate() const;

  private:
    explicit SocketPort(SocketNetwork& network) : network_(network) {}
    SocketNetwork& network_;
    std::vector<sys::Fd> near_;
};

} // namespace godwit::virtio::testing
