#pragma once

/// For tests: runs requests to their end on a loop that nobody else runs, and a request that brings
/// its own memory. Owner thread only.

#include "block/block_device.h"
#include "sys/event_loop.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace godwit::block::testing {

/// One request with memory of its own, to be submitted by hand.
struct SingleRequest {
    explicit SingleRequest(BlockOperation operation,
                           std::uint64_t offset = 0,
                           std::uint64_t bytes = 0,
                           std::byte fill = std::byte{0x5a});
    SingleRequest(const SingleRequest&) = delete;
    SingleRequest& operator=(const SingleRequest&) = delete;
    ~SingleRequest() = default;

    std::vector<std::byte> memory;
    iovec segment{};
    BlockRequest block;
    std::optional<Status> outcome; ///< Once it is done.
};

/// Submits `request` and serves the loop until it is done. Uses its `done` and `owner`.
[[nodiscard]] Status perform(BlockDevice& device, sys::EventLoop& loop, BlockRequest& request);
/// The same for several at once; the outcomes in their order.
[[nodiscard]] std::vector<Status>
perform_all(BlockDevice& device, sys::EventLoop& loop, std::span<BlockRequest> requests);

} // namespace godwit::block::testing
