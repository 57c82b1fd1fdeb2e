// Changes (writes, zeroing, discards) of the guest while it is mirrored, redirected or returned.
//
//     claim -> both | destination | source -> [acknowledged at the first] -> settled, claim
//     released
//
// How a change ends, by side (both: only the blocks that the destination has got already):
//
//     routing      source   destination   the guest hears   blocks are afterwards
//     mirrored     done     done          done              the same on both
//     mirrored     done     failed        done              at the source; the move is cancelled
//     mirrored     failed   done, all     done, if no FUA   ahead at the destination
//     mirrored     failed   else          failed            undefined, copied anew
//     redirected   -        done          done              ahead at the destination
//     redirected   -        failed        as the source     written to the source; cancelled
//     returning    done     -             done              at the source
//
// A flush of the source that fails meanwhile may have lost what the source has done of a change
// that the guest has not heard of: that part goes out once more first.
#include "block/move/guest_path.h"
#include "block/move/hot_filter.h"
#include "block/segments.h"

#include <algorithm>
#include <utility>

namespace godwit::block {

namespace {
/// Of an operation that waits for the next request: larger buffers are not kept.
constexpr std::uint64_t memory_kept_bytes = std::uint64_t{128} << 10U;
} // namespace

void GuestPath::begin_change(GuestOperation& operation) {
    operation.claim.range = operation.range;
    operation.claim.holder = RangeLocks::Holder::guest;
    operation.claim.granted = &GuestPath::granted;
    operation.claim.owner = &operation;
    operation.claimed = true;
    if (state_->locks.acquire(operation.claim)) {
        issue_change(operation);
    }
}

void GuestPath::granted(RangeLocks::Claim& claim) noexcept {
    GuestOperation& operation = *static_cast<GuestOperation*>(claim.owner);
    operation.path->issue_change(operation);
    operation.path->kick();
}

void GuestPath::issue_change(GuestOperation& operation) {
    operation.routing = state_->routing;
    switch (operation.routing) {
    case Routing::tracked:
    case Routing::mirrored:
        issue_both(operation, intersect(operation.range, state_->copied()));
        return;
    case Routing::redirected:
        if (state_->safe) {
            issue_both(operation, operation.range);
        } else {
            submit_part(operation, Side::destination, operation.range);
        }
        return;
    case Routing::returning:
        submit_part(operation, Side::source, operation.range);
        return;
    }
}

void GuestPath::issue_both(GuestOperation& operation, BlockRange on_destination) {
    operation.in_order = plain_changes_ == 0;
    operation.may_finish_later = on_destination == operation.range && may_finish_later(operation);
    submit_part(operation, Side::source, operation.range);
    if (!on_destination.empty()) {
        submit_part(operation, Side::destination, on_destination);
    }
}

/// Whether the guest may go on when one side has it: then the data has to be ours (HS-5). What is
/// outstanding is bounded; beyond that the guest waits for the slower side.
bool GuestPath::may_finish_later(GuestOperation& operation) {
    const bool asked = state_->scheme == Scheme::aio || state_->routing == Routing::redirected;
    const BlockRequest& guest = *operation.guest;
    if (!asked || guest.force_unit_access || early_changes_ >= unfinished_max) {
        return false;
    }
    if (operation.operation != BlockOperation::write) {
        ++early_changes_;
        return true;
    }
    if (guest.bytes > unfinished_bytes_max - early_bytes_) {
        return false;
    }
    if (operation.memory.size() < guest.bytes) {
        operation.memory = AlignedBuffer(guest.bytes);
    }
    if (operation.memory.size() < guest.bytes) {
        return false;
    }
    ++early_changes_;
    early_bytes_ += guest.bytes;
    gather(guest.segments, 0, operation.memory.bytes().first(guest.bytes));
    operation.memory_segment = {.iov_base = operation.memory.bytes().data(),
                                .iov_len = guest.bytes};
    return true;
}

void GuestPath::change_part_done(GuestOperation& operation, Side side) {
    const Status& status =
        side == Side::source ? operation.source_status : operation.destination_status;
    const BlockRange range = side == Side::source ? operation.on_source : operation.on_destination;
    if (status.has_value()) {
        WrittenBytes& bytes =
            side == Side::source ? state_->counters.source : state_->counters.destination;
        const bool own = operation.routing == Routing::redirected ? side == Side::destination
                                                                  : side == Side::source;
        (own && !operation.repeats ? bytes.guest : bytes.redundant) += state_->bytes_of(range);
        (side == Side::source ? operation.claim.source_has : operation.claim.destination_has) =
            true;
    }
    if (operation.pending == 0) {
        settle_change(operation);
    } else if (operation.may_finish_later && status.has_value() &&
               (operation.routing == Routing::mirrored || side == Side::destination)) {
        acknowledge_early(operation);
    }
}

void GuestPath::acknowledge_early(GuestOperation& operation) {
    operation.claim.acknowledged = true;
    operation.number = next_acknowledged_++;
    unfinished_.push_back(operation.number);
    // Reads follow at once to the side that has it.
    if (operation.claim.destination_has) {
        state_->ahead.add(operation.range);
    } else {
        state_->ahead.remove(operation.range);
        state_->refused.remove(operation.range);
    }
    if (filter_ != nullptr) {
        filter_->note(operation.range);
    }
    acknowledge(operation, ok());
}

/// Its claim is held and its data is there still, as the guest has not heard of it.
bool GuestPath::repeat_at_source(GuestOperation& operation) {
    if (!std::exchange(operation.source_again, false)) {
        return false;
    }
    operation.repeats = true;
    operation.claim.source_has = false;
    submit_part(operation, Side::source, operation.on_source);
    return true;
}

void GuestPath::settle_change(GuestOperation& operation) {
    if (repeat_at_source(operation)) {
        return;
    }
    if (operation.routing == Routing::redirected && !state_->safe) {
        settle_redirected(operation);
        return;
    }
    Status status;
    if (operation.routing == Routing::returning) {
        status = std::move(operation.source_status);
        if (status.has_value()) {
            state_->ahead.remove(operation.range);
            state_->refused.remove(operation.range);
            state_->returned.remove(operation.range);
        }
    } else {
        status = settle_both(operation);
    }
    if (filter_ != nullptr && !operation.acknowledged) {
        filter_->note(operation.range);
    }
    end_unfinished(operation);
    acknowledge(operation, std::move(status));
    finish_claim(operation);
    retire(operation);
    start_ripe_flushes();
}

Status GuestPath::settle_both(GuestOperation& operation) {
    const bool source_has = operation.source_status.has_value();
    const bool destination_has =
        operation.on_destination == operation.range && operation.destination_status.has_value();
    if (operation.routing == Routing::redirected && destination_has) {
        state_->written_early.add(operation.range); // Safe: the copier need not come for it.
    }
    const bool rescued = destination_has && !operation.destination.force_unit_access;
    if (source_has) {
        state_->ahead.remove(operation.range);
        state_->refused.remove(operation.range);
        // What the destination lacked it now has as well, unless the copier is still to come.
        if (operation.destination_status.has_value() && operation.in_order) {
            state_->dirty.remove(operation.on_destination);
        }
    } else if (rescued) {
        ++state_->counters.source_failures;
        state_->ahead.add(operation.range);
        state_->refused.add(operation.range);
        state_->dirty.remove(operation.range);
    } else {
        // Failed, so undefined; but what reads give must not change at the switch.
        state_->dirty.add(operation.on_destination);
    }
    if (!operation.destination_status.has_value() && listener_ != nullptr) {
        listener_->destination_failed(operation.destination_status.error());
    }
    return source_has || rescued ? ok() : std::move(operation.source_status);
}

/// The destination alone was to have it; if it failed, the source gets it after all.
void GuestPath::settle_redirected(GuestOperation& operation) {
    if (!operation.on_source.empty()) {
        if (operation.source_status.has_value()) {
            state_->ahead.remove(operation.range);
        }
        acknowledge(operation, std::move(operation.source_status));
    } else if (operation.destination_status.has_value()) {
        state_->ahead.add(operation.range);
        if (filter_ != nullptr) {
            filter_->note(operation.range);
        }
        acknowledge(operation, ok());
    } else {
        if (listener_ != nullptr) {
            listener_->destination_failed(operation.destination_status.error());
        }
        operation.routing = Routing::returning;
        submit_part(operation, Side::source, operation.range);
        return;
    }
    finish_claim(operation);
    retire(operation);
    start_ripe_flushes();
}

void GuestPath::end_unfinished(GuestOperation& operation) {
    if (operation.claim.acknowledged) {
        operation.claim.acknowledged = false;
        std::erase(unfinished_, operation.number);
    }
    if (std::exchange(operation.may_finish_later, false)) {
        give_room_back(operation);
    }
}

void GuestPath::give_room_back(GuestOperation& operation) noexcept {
    --early_changes_;
    if (operation.operation == BlockOperation::write) {
        early_bytes_ -= state_->bytes_of(operation.range);
    }
    if (operation.memory.size() > memory_kept_bytes) {
        operation.memory = AlignedBuffer();
    }
}

} // namespace godwit::block
