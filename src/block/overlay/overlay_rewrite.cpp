// New clusters once more, after a flush of the delta has failed: their data may never come to the
// medium, and with a cluster that was filled that is what the base had promised for good. Each is
// read and written again under a claim, before the next commit flushes and names it.
#include "block/overlay/overlay_device.h"

#include <utility>

namespace godwit::block {

void OverlayDevice::rewrite_on() {
    while (rewrite_next_ < suspects_.size()) {
        const DeltaEntry& entry = suspects_[rewrite_next_];
        if (rewrite_cluster_ == entry.count) {
            ++rewrite_next_;
            rewrite_cluster_ = 0;
            continue;
        }
        const std::uint64_t cluster = entry.cluster + rewrite_cluster_;
        rewrite_claim_.range = {.first = cluster, .end = cluster + 1};
        rewrite_claim_.holder = RangeLocks::Holder::copier;
        rewrite_claim_.granted = &OverlayDevice::rewrite_granted;
        rewrite_claim_.owner = this;
        // A fold that waits for this commit has a claim already, and writes nothing.
        rewrite_claimed_ = !fold_commits_ || !fold_claim_.range.overlaps(rewrite_claim_.range);
        // A change that waits for the fold's claim must not stand before the commit it waits for.
        rewrite_waits_ = rewrite_claimed_ && !locks_.acquire_first(rewrite_claim_);
        if (rewrite_waits_ || rewrite_read()) {
            return;
        }
        end_rewrite_of_cluster();
    }
    suspects_.clear();
    flush_data();
}

void OverlayDevice::rewrite_granted(RangeLocks::Claim& claim) noexcept {
    OverlayDevice& device = *static_cast<OverlayDevice*>(claim.owner);
    device.rewrite_waits_ = false;
    if (!device.rewrite_read()) {
        device.end_rewrite_of_cluster();
        device.rewrite_on();
    }
    device.kick();
}

/// A fold has come to wait for the commit that waits for its claim.
void OverlayDevice::let_rewrite_pass() {
    if (!rewrite_waits_ || !fold_claim_.range.overlaps(rewrite_claim_.range)) {
        return;
    }
    rewrite_waits_ = false;
    give_rewrite_claim_back();
    if (!rewrite_read()) {
        end_rewrite_of_cluster();
        rewrite_on();
    }
}

/// False if the cluster does not lie in its slot any more.
bool OverlayDevice::rewrite_read() {
    const DeltaEntry& entry = suspects_[rewrite_next_];
    const std::uint64_t cluster = entry.cluster + rewrite_cluster_;
    const std::uint32_t slot = entry.slot + rewrite_cluster_;
    if (state_.map.slot(cluster) != slot) {
        return false;
    }
    rewrite_segment_ = {.iov_base = rewrite_buffer_.bytes().data(),
                        .iov_len = cluster_end(cluster) - cluster * cluster_bytes()};
    rewrite_request_ = {.operation = BlockOperation::read,
                        .offset = state_.header.slot_place(slot),
                        .bytes = rewrite_segment_.iov_len,
                        .segments = {&rewrite_segment_, 1},
                        .done = &OverlayDevice::rewrite_done,
                        .owner = this};
    delta_->submit(rewrite_request_);
    return true;
}

void OverlayDevice::end_rewrite_of_cluster() {
    ++rewrite_cluster_;
    give_rewrite_claim_back();
}

void OverlayDevice::give_rewrite_claim_back() {
    if (std::exchange(rewrite_claimed_, false)) {
        locks_.release(rewrite_claim_);
    }
}

void OverlayDevice::rewrite_done(BlockRequest& request, Status status) noexcept {
    OverlayDevice& device = *static_cast<OverlayDevice*>(request.owner);
    if (device.closing_) {
        return;
    }
    if (!status.has_value()) {
        device.give_rewrite_claim_back();
        device.end_commit(std::move(status));
    } else if (request.operation == BlockOperation::read) {
        request.operation = BlockOperation::write;
        device.delta_->submit(request);
    } else {
        device.end_rewrite_of_cluster();
        device.rewrite_on();
    }
    device.kick();
}

} // namespace godwit::block
