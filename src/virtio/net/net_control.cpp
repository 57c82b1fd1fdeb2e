#include "virtio/net/net_control.h"

#include "virtio/net/net_spec.h"

#include <array>
#include <cstring>
#include <span>

namespace godwit::virtio {

namespace {
constexpr std::size_t command_header_bytes = 2;
}

Result<NetCommand> parse_net_command(const Chain& chain, std::uint64_t features) {
    if (chain.writable_bytes == 0) {
        return Error(ErrorCode::corrupt, "network: a control command without room for the answer");
    }
    std::array<std::byte, command_header_bytes> header{};
    if (chain.copy_out(0, header) != header.size()) {
        return NetCommand(NetUnknownCommand{});
    }
    const auto command_class = std::to_integer<std::uint8_t>(header[0]);
    const auto command = std::to_integer<std::uint8_t>(header[1]);
    if (command_class == net_ctrl_announce && command == net_ctrl_announce_ack &&
        (features & net_f_guest_announce) != 0) {
        return NetCommand(NetAnnounceAck{});
    }
    if (command_class == net_ctrl_mq && command == net_ctrl_mq_vq_pairs_set &&
        (features & net_f_mq) != 0) {
        std::uint16_t pairs = 0;
        if (chain.copy_out(command_header_bytes, std::as_writable_bytes(std::span(&pairs, 1))) ==
            sizeof(pairs)) {
            return NetCommand(NetSetPairs{.pairs = pairs});
        }
    }
    return NetCommand(NetUnknownCommand{});
}

} // namespace godwit::virtio
