// Reads of the guest while blocks lie on different sides: run by run, each from a side that has
// the latest version. What is routed to the source stays right there whatever the copier does
// meanwhile; a change that overtakes a read is one that the guest had in flight beside it.
#include "block/move/guest_path.h"

#include <algorithm>
#include <utility>

namespace godwit::block {

void GuestPath::begin_read(GuestOperation& operation) {
    operation.avoids_destination = false;
    read_on(operation);
}

/// The next run from `range.first` on that lies on one side.
GuestPath::ReadRun GuestPath::next_read_run(const GuestOperation& operation,
                                            const BlockRange& range) const noexcept {
    if (state_->ahead.contains(range.first)) {
        return {.range = state_->ahead.next_run(range), .side = Side::destination};
    }
    BlockRange run = state_->ahead.next_gap(range);
    if (operation.avoids_destination || !prefers_destination(run)) {
        return {.range = run, .side = Side::source};
    }
    run.end = std::min(run.end, state_->cursor);
    return {.range = run, .side = Side::destination};
}

/// Whether the beginning of `run` is better read from the destination, which has it as well.
bool GuestPath::prefers_destination(const BlockRange& run) const noexcept {
    const bool wanted = state_->routing == Routing::redirected ||
                        (state_->routing == Routing::mirrored && state_->reads_from_destination);
    const BlockRange copied = intersect(run, state_->copied());
    if (!wanted || copied.empty() || !state_->dirty.empty() || state_->locks.copier_holds(copied)) {
        return false;
    }
    bool written = false; // A change may be acknowledged that is not there yet.
    state_->locks.for_each_overlapping(copied, [&](const RangeLocks::Claim& claim) {
        written = written || (claim.held && !claim.destination_has);
    });
    return !written;
}

void GuestPath::read_on(GuestOperation& operation) {
    const bool from_source = !operation.on_source.empty();
    const bool from_destination = !operation.on_destination.empty();
    Status& status = from_source ? operation.source_status : operation.destination_status;
    const BlockRange run = from_source ? operation.on_source : operation.on_destination;
    if (!status.has_value()) {
        if (from_destination && listener_ != nullptr) {
            listener_->destination_failed(status.error());
        }
        if (from_source || operation.avoids_destination || state_->ahead.count_in(run) > 0) {
            acknowledge(operation, std::move(status));
            retire(operation);
            return;
        }
        operation.avoids_destination = true;
        operation.destination_status = ok();
    } else {
        operation.read_blocks += run.count();
    }
    operation.on_source = {};
    operation.on_destination = {};
    if (operation.read_blocks == operation.range.count()) {
        acknowledge(operation, ok());
        retire(operation);
        return;
    }
    const ReadRun next = next_read_run(
        operation,
        {.first = operation.range.first + operation.read_blocks, .end = operation.range.end});
    submit_part(operation, next.side, next.range);
}

} // namespace godwit::block
