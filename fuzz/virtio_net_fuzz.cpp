// The network device against a hostile driver and a network that sends anything. The first byte
// chooses the features; see hostile_driver.h for the rest.

#include "hostile_driver.h"
#include "virtio/net/net_device.h"
#include "virtio/net/net_spec.h"
#include "virtio/testing/socket_port.h"

#include <sys/socket.h>

using namespace godwit;

namespace {

constexpr std::size_t pairs = 2;

virtio::NetDevice::Args args_of(std::unique_ptr<virtio::NetPort> port) {
    return {.instance = 0,
            .mac = {},
            .mtu = 1500,
            .port = std::move(port),
            .loop = &fuzz::io_thread().loop()};
}

std::uint64_t features_of(std::uint8_t choice) {
    return virtio::feature_version_1 | virtio::net_f_ctrl_vq | virtio::net_f_guest_announce |
           ((choice & 1U) != 0 ? virtio::net_f_mrg_rxbuf : 0U) |
           ((choice & 2U) != 0 ? virtio::net_f_mq : 0U);
}

/// The network takes what the guest has sent, and sends a packet of any length.
void network_event(fuzz::Input& input, const virtio::testing::SocketNetwork& network) {
    static std::vector<char> packet(virtio::net_packet_bytes_max + 100);
    for (const sys::Fd& far : network.far) {
        while (::recv(far.raw(), packet.data(), packet.size(), MSG_DONTWAIT) > 0) {
        }
    }
    const auto choice = input.take<std::uint8_t>();
    const std::size_t bytes = input.take<std::uint16_t>() + ((choice & 2U) != 0 ? 100U : 0U);
    [[maybe_unused]] const auto sent =
        ::send(network.far[choice % pairs].raw(), packet.data(), bytes, MSG_DONTWAIT);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input({data, size});
    const std::uint64_t features = features_of(input.take<std::uint8_t>());
    virtio::testing::SocketNetwork network;
    auto port = std::make_unique<virtio::testing::SocketPort>(network, pairs);
    const auto spare = port->duplicate();
    auto device = GODWIT_MUST(virtio::NetDevice::create(args_of(std::move(port)))); // 2 pairs
    fuzz::HostileDriver driver(
        std::move(device),
        [&](const state::Section& section) -> Result<fuzz::HostileDriver::Device> {
            return GODWIT_TRY(virtio::NetDevice::restore(args_of(spare->duplicate()), section));
        },
        [&](fuzz::Input& in, virtio::VirtioDevice&) { network_event(in, network); });
    driver.run(input, features);
    return 0;
}
