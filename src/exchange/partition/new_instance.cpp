#include "exchange/partition/new_instance.h"

#include "base/fault_point.h"
#include "base/log.h"

#include <algorithm>

// clang-format off
/// Steps of the new instance, each with its undo. Numbers stand in fault points ("partition.new.3").
///
///   #  step      undo
///   1  hello     nothing is ours yet but what the old instance gave: it reclaims that once we have ended
///      programs and CPUs come one by one: program_mover.cpp
///   2  armed     an estate was accepted, the timer runs: nothing is claimed
///   3  inherit   deadline passed AND end proven; every extent of the old instance: goes on where it stopped
///   4  scrub     the old instance's own memory: again
///   5  last CPU  and every word that is left; the table forgets the old instance: goes on where it stopped
///   6  done      none
// clang-format on

namespace godwit::exchange::partition {

namespace {
/// Every stage is left in the round in which its work is done.
constexpr int rounds_max = 8;
} // namespace

Result<NewInstance>
NewInstance::create(const Parts& parts, Witness& old_instance, const EstateLimits& limits) {
    if (parts.self != Side::new_instance) {
        return Error(ErrorCode::invalid_argument, "only the new instance inherits");
    }
    return NewInstance(GODWIT_TRY(ProgramMover::create(parts)), old_instance, limits);
}

Status NewInstance::hello() {
    fault_point("partition.new.1");
    return mover_.tell({.type = MessageType::hello});
}

Evidence NewInstance::gather() const {
    const sys::Moment now = mover_.parts().clock.now();
    // The end first: an estate that is not there after it will never be.
    Evidence evidence{
        .now = now, .estate = {}, .old_instance = witness_.liveness(now), .finished = finished_};
    if (state_.stage != NewStage::waiting) {
        return evidence; // What was accepted stands.
    }
    auto estate = mover_.parts().region.read_estate();
    if (estate.has_value() && estate->has_value()) {
        const memory::ExtentTable& table = mover_.parts().pool.table();
        evidence.pointers_good =
            std::ranges::all_of((*estate)->extents, [&](const memory::Extent& extent) {
                return extent.owner == mover_.peer_owner() &&
                       table.check_current(extent).has_value();
            });
        evidence.estate = std::move(*estate);
    }
    // Broken bytes are no estate: an instance that lives can write it again, and if it has ended,
    // the partition map tells what it had.
    return evidence;
}

Status NewInstance::carry_out(const NewStep& step) {
    const Parts& parts = mover_.parts();
    finished_ = false;
    switch (step.action) {
    case NewAction::none:
        return ok();
    case NewAction::refuse_estate:
        log::warn("partition_estate_refused", {{"reason", step.reason}});
        return mover_.tell(
            {.type = MessageType::estate_refused, .subject = 0, .value = step.state.refused});
    case NewAction::fence:
        log::warn("partition_old_instance_fenced");
        return witness_.fence();
    case NewAction::claim:
        fault_point("partition.new.3");
        GODWIT_TRY(claim_memory(parts.pool, mover_.peer_owner(), mover_.self_owner(), legacy_));
        break;
    case NewAction::scrub:
        fault_point("partition.new.4");
        GODWIT_TRY(scrub_memory(parts.pool, legacy_));
        break;
    case NewAction::take_cpu:
        fault_point("partition.new.5");
        GODWIT_TRY(claim_tokens(parts.region, mover_.peer(), mover_.self(), legacy_));
        GODWIT_TRY(parts.pool.table().unregister_owner(mover_.peer_owner()));
        break;
    }
    finished_ = true;
    return ok();
}

Result<NewStage> NewInstance::settle_estate() {
    for (int round = 0; round < rounds_max; ++round) {
        const NewStage before = state_.stage;
        const NewStep step = next(state_, gather(), limits_);
        state_ = step.state;
        wake_at_ = step.wake_at;
        if (state_.stage == NewStage::armed && before != NewStage::armed) {
            fault_point("partition.new.2");
        }
        GODWIT_TRY(carry_out(step));
        if (!finished_) {
            break;
        }
    }
    if (state_.stage == NewStage::done) {
        fault_point("partition.new.6");
    }
    return state_.stage;
}

} // namespace godwit::exchange::partition
