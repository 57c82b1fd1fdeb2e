#include "doors/disk_view.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace godwit::doors {

void DiskView::submit(block::BlockRequest& request) {
    if (times_.of(request.operation).seen++ % sampled_one_of == 0) {
        // `due` is the decorator's to use: here, when it began.
        timed_.intercept(request, this, &DiskView::done).due = clock_.now();
    }
    disk_.submit(request);
}

void DiskView::done(block::BlockRequest& request, Status status) noexcept {
    auto& taken = *static_cast<block::Interception*>(request.owner);
    DiskView& view = *static_cast<DiskView*>(taken.device);
    const auto took =
        std::chrono::duration_cast<std::chrono::microseconds>(view.clock_.now() - taken.due)
            .count();
    const auto microseconds = static_cast<std::uint64_t>(std::max<std::int64_t>(took, 0));
    RequestTimes::Kind& kind = view.times_.of(request.operation);
    const auto bucket = static_cast<std::size_t>(std::bit_width(microseconds));
    ++kind.below[std::min(bucket, RequestTimes::buckets - 1)];
    ++kind.timed;
    kind.microseconds += microseconds;
    block::BlockRequest& restored = view.timed_.restore(taken);
    restored.done(restored, std::move(status));
}

} // namespace godwit::doors
