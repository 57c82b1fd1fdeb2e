// Flushes of the guest while both sides take its changes: each covers every change that was
// acknowledged before it, on both sides (HS, failure rule of AIO).
#include "block/move/guest_path.h"

#include <algorithm>
#include <utility>

namespace godwit::block {

void GuestPath::begin_flush(GuestOperation& operation) {
    operation.waits_for_number = next_acknowledged_;
    waiting_flushes_.push_back(&operation);
    start_ripe_flushes();
}

/// Those whose acknowledged changes have all come to their end on both sides.
void GuestPath::start_ripe_flushes() {
    const auto oldest = std::ranges::min_element(unfinished_);
    const std::uint64_t finished = oldest == unfinished_.end() ? next_acknowledged_ : *oldest;
    for (std::size_t i = 0; i < waiting_flushes_.size();) {
        GuestOperation& flush = *waiting_flushes_[i];
        if (flush.waits_for_number > finished) {
            ++i;
            continue;
        }
        waiting_flushes_.erase(waiting_flushes_.begin() + static_cast<std::ptrdiff_t>(i));
        issue_flush(flush);
    }
}

void GuestPath::issue_flush(GuestOperation& operation) {
    operation.needs_destination = state_->routing == Routing::redirected || !state_->ahead.empty();
    operation.source_lacks = !state_->refused.empty();
    submit_part(operation, Side::source, {});
    submit_part(operation, Side::destination, {});
}

void GuestPath::settle_flush(GuestOperation& operation) {
    if (!operation.source_status.has_value() && !operation.acknowledged) {
        // At once: a flush that comes now does not cover what this one has lost.
        source_flush_failed();
        acknowledge(operation, std::move(operation.source_status));
    }
    if (operation.pending > 0) {
        return;
    }
    Status status;
    if (!operation.destination_status.has_value()) {
        if (listener_ != nullptr) {
            listener_->destination_failed(operation.destination_status.error());
        }
        if (operation.needs_destination) {
            status = std::move(operation.destination_status);
        }
    }
    if (operation.source_lacks) {
        status = Error(ErrorCode::io, "the disk's source does not take some of its blocks");
    }
    if (status.has_value() && !operation.acknowledged) {
        status = take_owed_failure();
    }
    acknowledge(operation, std::move(status));
    retire(operation);
}

/// What the source has done so far may be lost, whatever its next flush says. Whoever has heard of
/// it hears of the flush as well; the rest has to be done once more.
void GuestPath::source_flush_failed() {
    if (state_ == nullptr) {
        return;
    }
    state_->give_returned_up();
    for (GuestOperation& operation : operations_) {
        operation.source_again =
            operation.claimed && operation.claim.source_has && !operation.acknowledged;
    }
}

Status GuestPath::take_owed_failure() {
    if (!owed_failure_.has_value()) {
        return ok();
    }
    Status status(std::move(*owed_failure_));
    owed_failure_.reset();
    return status;
}

} // namespace godwit::block
