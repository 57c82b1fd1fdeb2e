#include "block/move/range_locks.h"

namespace godwit::block {

bool RangeLocks::is_free(const Claim& claim) noexcept {
    for (const Claim* earlier = claim.previous; earlier != nullptr; earlier = earlier->previous) {
        if (earlier->range.overlaps(claim.range)) {
            return false;
        }
    }
    // Later ones that were held before this one came first.
    for (const Claim* later = claim.next; later != nullptr; later = later->next) {
        if (later->held && later->range.overlaps(claim.range)) {
            return false;
        }
    }
    return true;
}

void RangeLocks::prepare(Claim& claim) noexcept {
    claim.acknowledged = false;
    claim.source_has = false;
    claim.destination_has = false;
}

bool RangeLocks::acquire_first(Claim& claim) noexcept {
    prepare(claim);
    claim.previous = nullptr;
    claim.next = first_;
    (first_ == nullptr ? last_ : first_->previous) = &claim;
    first_ = &claim;
    claim.held = is_free(claim);
    return claim.held;
}

bool RangeLocks::acquire(Claim& claim) noexcept {
    prepare(claim);
    claim.previous = last_;
    claim.next = nullptr;
    (last_ == nullptr ? first_ : last_->next) = &claim;
    last_ = &claim;
    claim.held = is_free(claim);
    return claim.held;
}

void RangeLocks::release(Claim& claim) noexcept {
    (claim.previous == nullptr ? first_ : claim.previous->next) = claim.next;
    (claim.next == nullptr ? last_ : claim.next->previous) = claim.previous;
    claim.held = false;
    // granted() may change the list: after each the search begins anew.
    for (Claim* waiting = first_; waiting != nullptr;) {
        if (!waiting->held && is_free(*waiting)) {
            waiting->held = true;
            waiting->granted(*waiting);
            waiting = first_;
        } else {
            waiting = waiting->next;
        }
    }
}

bool RangeLocks::copier_holds(const BlockRange& range) const noexcept {
    for (const Claim* claim = first_; claim != nullptr; claim = claim->next) {
        if (claim->held && claim->holder == Holder::copier && claim->range.overlaps(range)) {
            return true;
        }
    }
    return false;
}

} // namespace godwit::block
