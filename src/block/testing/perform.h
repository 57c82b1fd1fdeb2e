#pragma once

/// For tests: runs requests to their end on a loop that nobody else runs. Owner thread only.

#include "block/block_device.h"
#include "sys/event_loop.h"

#include <span>
#include <vector>

namespace godwit::block::testing {

/// Submits `request` and serves the loop until it is done. Uses its `done` and `owner`.
[[nodiscard]] Status perform(BlockDevice& device, sys::EventLoop& loop, BlockRequest& request);
/// The same for several at once; the outcomes in their order.
[[nodiscard]] std::vector<Status>
perform_all(BlockDevice& device, sys::EventLoop& loop, std::span<BlockRequest> requests);

} // namespace godwit::block::testing
