#pragma once

/// Commands on the control queue of a network device (virtio 1.2, section 5.1.6.5), as values.
/// Offered: the number of queue pairs in use, and the acknowledgement of an announcement.

#include "base/result.h"
#include "virtio/virt_queue.h"

#include <cstdint>
#include <variant>

namespace godwit::virtio {

struct NetSetPairs {
    std::uint16_t pairs = 0;
};
struct NetAnnounceAck {};
/// Anything else, and commands of features the driver has not negotiated: answered with net_err.
struct NetUnknownCommand {};
using NetCommand = std::variant<NetUnknownCommand, NetSetPairs, NetAnnounceAck>;

/// Reads a command; an error if there is no room for the answer.
[[nodiscard]] Result<NetCommand> parse_net_command(const Chain& chain, std::uint64_t features);

} // namespace godwit::virtio
