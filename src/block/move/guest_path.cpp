#include "block/move/guest_path.h"

#include "block/move/hot_filter.h"
#include "block/segments.h"

#include <algorithm>
#include <utility>

namespace godwit::block {

Result<std::unique_ptr<GuestPath>> GuestPath::create(std::unique_ptr<BlockDevice> disk,
                                                     sys::AlarmClock& clock) {
    std::unique_ptr<GuestPath> path(new GuestPath(std::move(disk), clock));
    path->alarm_ = GODWIT_TRY(clock.create_alarm([raw = path.get()] { raw->ring(); }));
    return path;
}

GuestPath::GuestPath(std::unique_ptr<BlockDevice> disk, sys::AlarmClock& clock)
    : clock_(clock), source_(std::move(disk)) {}

GuestPath::~GuestPath() {
    close_devices();
}

void GuestPath::close_devices() noexcept {
    // What their destructors still bring to its end comes back here and goes no further.
    closing_ = true;
    listener_ = nullptr;
    source_.reset();
    destination_.reset();
}

void GuestPath::submit(BlockRequest& request) {
    ++in_flight_;
    if (holding_) {
        held_.push(request);
    } else {
        begin(request);
    }
}

void GuestPath::kick() {
    if (closing_) {
        return;
    }
    source_->kick();
    if (destination_) {
        destination_->kick();
    }
}

void GuestPath::begin(BlockRequest& request) {
    ++active_;
    count(request);
    if (state_ == nullptr || state_->routing == Routing::tracked) {
        begin_plain(request);
    } else {
        begin_claimed(request);
    }
}

void GuestPath::count(const BlockRequest& request) noexcept {
    if (request.operation == BlockOperation::flush) {
        ++traffic_.flushes;
    } else if (request.operation == BlockOperation::read) {
        ++traffic_.reads;
        traffic_.read_bytes += request.bytes;
    } else {
        ++traffic_.changes;
        traffic_.changed_bytes += request.bytes;
    }
}

BlockRange GuestPath::range_of(const BlockRequest& request) const noexcept {
    const std::uint64_t block = source_->geometry().logical_block_bytes;
    return {.first = request.offset / block, .end = (request.offset + request.bytes) / block};
}

// --- straight through ---

void GuestPath::begin_plain(BlockRequest& request) {
    plain_changes_ += changes_data(request.operation) ? 1U : 0U;
    plain_.intercept(request, this, &GuestPath::plain_done);
    source_->submit(request);
}

void GuestPath::plain_done(BlockRequest& request, Status status) noexcept {
    Interception& taken = *static_cast<Interception*>(request.owner);
    GuestPath& path = *static_cast<GuestPath*>(taken.device);
    path.plain_.restore(taken);
    if (changes_data(request.operation)) {
        --path.plain_changes_;
        path.plain_change_done(request, status);
    } else if (request.operation == BlockOperation::flush) {
        if (status.has_value()) {
            status = path.take_owed_failure();
        } else {
            path.source_flush_failed();
        }
    }
    --path.active_;
    --path.in_flight_;
    request.done(request, std::move(status));
    path.after_departure();
}

void GuestPath::plain_change_done(const BlockRequest& request, const Status& status) {
    if (state_ == nullptr && filter_ == nullptr) {
        return;
    }
    if (validate(request, source_->geometry()).has_value()) {
        mark(range_of(request));
    }
    if (state_ != nullptr && status.has_value()) {
        state_->counters.source.guest += request.bytes;
    }
}

/// The rule of tracking: after the change, before the guest hears of it.
void GuestPath::mark(const BlockRange& range) {
    if (filter_ != nullptr) {
        filter_->note(range);
    }
    if (state_ == nullptr || intersect(range, state_->all()) != range) {
        return;
    }
    if (state_->scheme == Scheme::dbt) {
        state_->dirty.add(range);
        return;
    }
    const BlockRange late = intersect(range, state_->copied());
    // What waits for the pause is copied there anyway.
    for (BlockRange gap = state_->deferred.next_gap(late); !gap.empty();
         gap = state_->deferred.next_gap({.first = gap.end, .end = late.end})) {
        state_->dirty.add(gap);
    }
    if (state_->scheme == Scheme::tiered) {
        state_->written_early.add(
            {.first = std::max(range.first, state_->cursor), .end = range.end});
    }
}

void GuestPath::after_departure() {
    if (listener_ != nullptr && (active_ == 0 || plain_changes_ == 0)) {
        listener_->path_drained();
    }
}

// --- held, refused ---

void GuestPath::release() {
    holding_ = false;
    while (!holding_) {
        BlockRequest* const request = held_.try_pop();
        if (request == nullptr) {
            break;
        }
        begin(*request);
    }
    kick();
}

void GuestPath::refuse(BlockRequest& request, Status why) {
    Interception& taken = plain_.intercept(request, this, request.done);
    taken.status = std::move(why);
    refused_.push_back(&taken);
    alarm_->set(clock_.now());
}

void GuestPath::ring() {
    for (Interception* taken : std::exchange(refused_, {})) {
        Status status = std::move(taken->status);
        BlockRequest& request = plain_.restore(*taken);
        --active_;
        --in_flight_;
        request.done(request, std::move(status));
    }
    after_departure();
}

// --- operations ---

void GuestPath::begin_claimed(BlockRequest& request) {
    if (Status valid = validate(request, source_->geometry()); !valid.has_value()) {
        refuse(request, std::move(valid));
        return;
    }
    GuestOperation& operation = take_operation(request);
    if (operation.operation == BlockOperation::flush) {
        begin_flush(operation);
    } else if (intersect(operation.range, state_->all()) != operation.range) {
        retire(operation); // The source has grown since the move began.
        ++active_;
        refuse(request, Error(ErrorCode::invalid_argument, "beyond the disk that is being moved"));
    } else if (operation.operation == BlockOperation::read) {
        begin_read(operation);
    } else {
        begin_change(operation);
    }
}

GuestOperation& GuestPath::take_operation(BlockRequest& request) {
    if (idle_.empty()) {
        idle_.push_back(&operations_.emplace_back());
        idle_.reserve(operations_.size());
    }
    GuestOperation& operation = *idle_.back();
    idle_.pop_back();
    operation.path = this;
    operation.guest = &request;
    operation.operation = request.operation;
    operation.range = request.operation == BlockOperation::flush ? BlockRange() : range_of(request);
    operation.claimed = false;
    operation.pending = 0;
    operation.on_source = {};
    operation.on_destination = {};
    operation.source_status = ok();
    operation.destination_status = ok();
    operation.may_finish_later = false;
    operation.acknowledged = false;
    operation.source_again = false;
    operation.repeats = false;
    operation.read_blocks = 0;
    return operation;
}

void GuestPath::retire(GuestOperation& operation) {
    --active_;
    idle_.push_back(&operation);
}

void GuestPath::acknowledge(GuestOperation& operation, Status status) {
    if (!std::exchange(operation.acknowledged, true)) {
        BlockRequest& guest = *std::exchange(operation.guest, nullptr);
        --in_flight_;
        guest.done(guest, std::move(status));
    }
}

void GuestPath::finish_claim(GuestOperation& operation) {
    if (std::exchange(operation.claimed, false)) {
        state_->locks.release(operation.claim);
    }
}

/// Whether a change takes the place of what only the destination may hold for good: until it is
/// durable itself, a source that loses it would show what was there before both.
bool GuestPath::replaces_durable(const GuestOperation& operation,
                                 Side side,
                                 const BlockRange& range) const noexcept {
    return side == Side::source && operation.routing == Routing::returning &&
           changes_data(operation.operation) &&
           state_->ahead.count_in(range) + state_->returned.count_in(range) > 0;
}

/// Sends `range` of the operation to one side; of a flush everything.
void GuestPath::submit_part(GuestOperation& operation, Side side, BlockRange range) {
    const bool to_source = side == Side::source;
    BlockRequest& part = to_source ? operation.source : operation.destination;
    (to_source ? operation.on_source : operation.on_destination) = range;
    part.operation = operation.operation;
    part.force_unit_access =
        operation.guest->force_unit_access || replaces_durable(operation, side, range);
    part.may_unmap = operation.guest->may_unmap;
    if (operation.operation == BlockOperation::discard) {
        part.operation = BlockOperation::write_zeroes;
        part.may_unmap = true;
    }
    part.offset = state_->bytes_of({.first = 0, .end = range.first});
    part.bytes = state_->bytes_of(range);
    part.segments = operation.may_finish_later && operation.operation == BlockOperation::write
                        ? std::span<const iovec>(&operation.memory_segment, 1)
                        : operation.guest->segments;
    if (!part.segments.empty() && range != operation.range) {
        std::vector<iovec>& own =
            to_source ? operation.source_segments : operation.destination_segments;
        slice(part.segments,
              state_->bytes_of({.first = operation.range.first, .end = range.first}),
              part.bytes,
              own);
        part.segments = own;
    }
    part.done = &GuestPath::part_done;
    part.owner = &operation;
    ++operation.pending;
    (to_source ? *source_ : *destination_).submit(part);
}

void GuestPath::part_done(BlockRequest& part, Status status) noexcept {
    GuestOperation& operation = *static_cast<GuestOperation*>(part.owner);
    GuestPath& path = *operation.path;
    if (path.closing_) {
        return;
    }
    const Side side = &part == &operation.source ? Side::source : Side::destination;
    (side == Side::source ? operation.source_status : operation.destination_status) =
        std::move(status);
    --operation.pending;
    switch (operation.operation) {
    case BlockOperation::read:
        path.read_on(operation);
        break;
    case BlockOperation::flush:
        path.settle_flush(operation);
        break;
    case BlockOperation::write:
    case BlockOperation::discard:
    case BlockOperation::write_zeroes:
        path.change_part_done(operation, side);
        break;
    }
    path.after_departure();
    path.kick();
}

// --- the move's beginning and end ---

void GuestPath::attach(MoveState& state,
                       std::unique_ptr<BlockDevice> destination,
                       Listener& listener) {
    GODWIT_ASSERT(state_ == nullptr);
    state_ = &state;
    destination_ = std::move(destination);
    listener_ = &listener;
}

std::unique_ptr<BlockDevice> GuestPath::detach(Keep keep) {
    // Plain requests do not know of the move; anything else must have come to its end.
    GODWIT_ASSERT(state_ != nullptr && state_->locks.empty() && unfinished_.empty());
    GODWIT_ASSERT(keep == Keep::source || active_ == 0);
    state_ = nullptr;
    listener_ = nullptr;
    if (keep == Keep::destination) {
        std::swap(source_, destination_);
    }
    return std::move(destination_);
}

} // namespace godwit::block
