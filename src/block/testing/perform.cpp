#include "block/testing/perform.h"

#include <chrono>

namespace godwit::block::testing {

SingleRequest::SingleRequest(BlockOperation operation,
                             std::uint64_t offset,
                             std::uint64_t bytes,
                             std::byte fill)
    : memory(bytes, fill), segment{.iov_base = memory.data(), .iov_len = bytes},
      block{.operation = operation, .offset = offset, .bytes = bytes, .owner = this} {
    if (operation == BlockOperation::read || operation == BlockOperation::write) {
        block.segments = {&segment, 1};
    }
    block.done = [](BlockRequest& request, Status status) noexcept {
        static_cast<SingleRequest*>(request.owner)->outcome.emplace(std::move(status));
    };
}

namespace {

/// A wait that long means the request is lost.
constexpr std::chrono::seconds patience(30);

struct Batch {
    std::span<BlockRequest> requests;
    std::vector<std::optional<Status>> outcomes;
    std::size_t left = 0;
};

void note_done(BlockRequest& request, Status status) noexcept {
    auto& batch = *static_cast<Batch*>(request.owner);
    auto& outcome = batch.outcomes[static_cast<std::size_t>(&request - batch.requests.data())];
    GODWIT_ASSERT(!outcome.has_value()); // done() comes once.
    outcome.emplace(std::move(status));
    --batch.left;
}

} // namespace

std::vector<Status>
perform_all(BlockDevice& device, sys::EventLoop& loop, std::span<BlockRequest> requests) {
    Batch batch{.requests = requests,
                .outcomes = std::vector<std::optional<Status>>(requests.size()),
                .left = requests.size()};
    for (BlockRequest& request : requests) {
        request.done = note_done;
        request.owner = &batch;
        device.submit(request);
    }
    GODWIT_ASSERT(batch.left == requests.size()); // Nothing is done from within submit().
    device.kick();
    bool late = false;
    const auto limit = GODWIT_MUST(loop.schedule(patience, {}, [&] { late = true; })); // Fits.
    while (batch.left > 0) {
        GODWIT_ASSERT(!late && loop.run_once(patience).has_value());
    }
    std::vector<Status> outcomes;
    outcomes.reserve(requests.size());
    for (std::optional<Status>& outcome : batch.outcomes) {
        outcomes.push_back(std::move(*outcome));
    }
    return outcomes;
}

Status perform(BlockDevice& device, sys::EventLoop& loop, BlockRequest& request) {
    return std::move(perform_all(device, loop, {&request, 1}).front());
}

} // namespace godwit::block::testing
