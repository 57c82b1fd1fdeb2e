#include "virtio/net/net_device.h"
#include "virtio/net/net_spec.h"
#include "virtio/testing/conformance.h"
#include "virtio/testing/socket_port.h"

namespace godwit::virtio::testing {
namespace {

/// Two queue pairs over sockets, so that the control queue has something to say.
struct NetMaker {
    std::unique_ptr<VirtioDevice> fresh(sys::EventLoop& loop) {
        return GODWIT_MUST(NetDevice::create(args(loop))); // 2 pairs are allowed
    }
    Result<std::unique_ptr<VirtioDevice>> restored(sys::EventLoop& loop,
                                                   const state::Section& section) {
        return GODWIT_TRY(NetDevice::restore(args(loop), section));
    }
    static state::Section canonical() {
        const std::string packet(net_header_bytes + 60, '\x5a');
        return save_net({.identity = {.mac = mac, .mtu = 1500, .queue_pairs = 2},
                         .active_pairs = 2,
                         .announce_pending = true,
                         .held = {"", packet}},
                        0);
    }
    static constexpr MacAddress mac{0x52, 0x54, 0, 1, 2, 3};
    NetDevice::Args args(sys::EventLoop& loop) {
        auto& network = networks.emplace_back(std::make_unique<SocketNetwork>());
        return {.instance = 0,
                .mac = mac,
                .mtu = 1500,
                .port = std::make_unique<SocketPort>(*network, 2),
                .loop = &loop};
    }
    std::vector<std::unique_ptr<SocketNetwork>> networks;
};

} // namespace

INSTANTIATE_TYPED_TEST_SUITE_P(Net, DeviceConformance, NetMaker);

} // namespace godwit::virtio::testing
