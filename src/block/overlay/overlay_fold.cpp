// Bringing a delta back into its base (LS-8), batch by batch under a claim:
//
//     claim -> (read slot -> write base) for each -> commit (flushes the base, then the journal
//     says: in the base) -> release
//
// A crash between any two leaves clusters that lie in both, alike; the delta's counts, and folding
// again does no harm. Slots are not used again before the delta is opened anew, so that reads on
// their way find what they look for.
#include "block/overlay/overlay_device.h"

#include <utility>

namespace godwit::block {

namespace {
constexpr std::uint64_t batch_clusters = 64;
} // namespace

Status OverlayDevice::fold(std::function<void(Status)> folded) {
    if (folding_now_) {
        return Error(ErrorCode::conflict, "the delta is being folded already");
    }
    if (base_->geometry().read_only) {
        return Error(ErrorCode::permission_denied, "the base is read-only");
    }
    folding_ = true;
    folding_now_ = true;
    folded_ = std::move(folded);
    wake_waiting(); // New clusters go to the base now.
    fold_on();
    kick();
    return ok();
}

Status OverlayDevice::cancel_fold(Error reason) {
    if (!folding_now_ || fold_end_.has_value()) {
        return Error(ErrorCode::not_found, "the delta is not being folded");
    }
    fold_end_ = std::move(reason); // After the batch, if there is one.
    if (!fold_claim_.held) {
        // Whoever has the claim may be waiting for room.
        locks_.release(fold_claim_);
        fold_claimed_ = false;
        set_alarm();
    }
    return ok();
}

void OverlayDevice::fold_on() {
    if (fold_end_.has_value()) {
        fold_over(std::move(*fold_end_));
        return;
    }
    const std::uint64_t first = state_.map.next(0);
    fold_claim_.range = {.first = first, .end = first + batch_clusters};
    if (first == state_.map.clusters()) {
        // Empty, but for changes on their way that began before: wait for all of them.
        fold_claim_.range = {.first = 0, .end = first};
    }
    fold_claim_.holder = RangeLocks::Holder::copier;
    fold_claim_.granted = &OverlayDevice::fold_granted;
    fold_claim_.owner = this;
    fold_claimed_ = true;
    if (locks_.acquire(fold_claim_)) {
        fold_batch();
    }
}

void OverlayDevice::release_fold_claim() {
    fold_claimed_ = false;
    locks_.release(fold_claim_);
}

void OverlayDevice::fold_granted(RangeLocks::Claim& claim) noexcept {
    OverlayDevice& device = *static_cast<OverlayDevice*>(claim.owner);
    device.fold_batch();
    device.kick();
}

void OverlayDevice::fold_batch() {
    fold_clusters_.clear();
    for (std::uint64_t cluster = state_.map.next(fold_claim_.range.first);
         cluster < state_.map.clusters() && cluster < fold_claim_.range.end;
         cluster = state_.map.next(cluster + 1)) {
        fold_clusters_.push_back(cluster);
    }
    if (fold_clusters_.empty()) {
        if (!pending_.empty() || !committing_.empty()) {
            fold_commit(); // What a commit that failed has left to be named.
            return;
        }
        release_fold_claim();
        fold_over(ok()); // What the guest has written to the base is its own to flush.
        return;
    }
    fold_next_ = 0;
    fold_spoilt_ = false;
    fold_copy();
}

/// The next cluster of the batch, or what comes after the last.
void OverlayDevice::fold_copy() {
    if (fold_next_ == fold_clusters_.size() && std::exchange(fold_spoilt_, false)) {
        fold_next_ = 0; // What was copied may be lost with that flush: once more.
    }
    if (fold_next_ == fold_clusters_.size()) {
        fold_commit();
        return;
    }
    fold_stage_ = FoldStage::read;
    submit_fold(*delta_,
                BlockOperation::read,
                state_.header.slot_place(state_.map.slot(fold_clusters_[fold_next_])));
}

void OverlayDevice::submit_fold(BlockDevice& device,
                                BlockOperation operation,
                                std::uint64_t offset) {
    fold_request_ = {
        .operation = operation, .offset = offset, .done = &OverlayDevice::fold_done, .owner = this};
    const std::uint64_t cluster = fold_clusters_[fold_next_];
    fold_segment_ = {.iov_base = fold_buffer_.bytes().data(),
                     .iov_len = cluster_end(cluster) - cluster * cluster_bytes()};
    fold_request_.bytes = fold_segment_.iov_len;
    fold_request_.segments = {&fold_segment_, 1};
    device.submit(fold_request_);
}

void OverlayDevice::fold_done(BlockRequest& request, Status status) noexcept {
    OverlayDevice& device = *static_cast<OverlayDevice*>(request.owner);
    if (device.closing_) {
        return;
    }
    if (device.fold_stage_ == FoldStage::commit) {
        device.fold_committed(std::move(status));
    } else if (!status.has_value()) {
        device.release_fold_claim();
        device.fold_over(std::move(status));
    } else {
        device.fold_part_done();
    }
    device.kick();
}

void OverlayDevice::fold_part_done() {
    switch (fold_stage_) {
    case FoldStage::read:
        fold_stage_ = FoldStage::write;
        submit_fold(*base_, BlockOperation::write, fold_clusters_[fold_next_] * cluster_bytes());
        return;
    case FoldStage::write:
        base_written_bytes_ += fold_request_.bytes;
        ++fold_next_;
        fold_copy();
        return;
    case FoldStage::commit:
        return;
    }
}

void OverlayDevice::fold_commit() {
    fold_stage_ = FoldStage::commit;
    fold_commits_ = true;
    for (const std::uint64_t cluster : fold_clusters_) {
        append_in_base(pending_, cluster);
    }
    // A flush of our own takes them along.
    fold_request_ = {
        .operation = BlockOperation::flush, .done = &OverlayDevice::fold_done, .owner = this};
    submit(fold_request_);
    let_rewrite_pass();
}

/// Clusters of the batch that the map still has were not in the base when it was flushed last: they
/// are folded anew. Of the others the next commit says so if this one could not.
void OverlayDevice::fold_committed(Status status) {
    fold_commits_ = false;
    release_fold_claim();
    if (!status.has_value()) {
        fold_over(std::move(status));
        return;
    }
    fold_on();
}

void OverlayDevice::fold_over(Status status) {
    folding_now_ = false;
    fold_end_.reset();
    if (!status.has_value()) {
        folding_ = false;
        base_flush_due_ = true;
        base_flush_always_ = true;
    }
    if (auto folded = std::exchange(folded_, nullptr)) {
        folded(std::move(status));
    }
}

} // namespace godwit::block
