#pragma once

/// From a descriptor chain to a block request (virtio 1.2, section 5.2.6). Everything in the chain
/// is hostile. Pure but for the serial number, which it writes into the chain. Any thread.

#include "base/result.h"
#include "block/block_device.h"
#include "virtio/virt_queue.h"

#include <sys/uio.h>

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace godwit::virtio {

enum class BlkStatus : std::uint8_t { ok = 0, io_error = 1, unsupported = 2 };

/// What is allowed on this disk, with the features its driver took.
struct BlkRules {
    block::BlockGeometry geometry;
    bool write_through = false; ///< No FLUSH negotiated: every write is durable when answered.
    bool discard = false;
    bool write_zeroes = false;
    std::string_view serial;
};

/// Fills `request` (but for done and owner) with its scatter list in `segments` and returns
/// nothing, or returns the answer if the disk is not to be asked. An error is a chain that cannot
/// even be answered; the driver has to reset.
[[nodiscard]] Result<std::optional<BlkStatus>> read_blk_request(const Chain& chain,
                                                                const BlkRules& rules,
                                                                block::BlockRequest& request,
                                                                std::vector<iovec>& segments);

} // namespace godwit::virtio
