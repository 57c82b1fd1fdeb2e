#include "exchange/partition/old_instance.h"

#include "base/fault_point.h"

#include <algorithm>

// clang-format off
/// Steps of the old instance, each with its undo. Numbers stand in fault points ("partition.old.3").
///
///   #  step      undo before the point of no return
///   1  register  the new instance becomes known to the pool's table: nothing, it owns nothing
///   2  divide    CPU tokens and free frames to the new one: reclaim() once it has ended
///      programs and CPUs move one by one: program_mover.cpp
///   3  drain     abort(): the instance serves again
///   4  write     deadline and pointers of the last memory: abort()
///   5  seal      none: the POINT OF NO RETURN of the instance (a refusal by the heir leads back to 3)
///   6  end       none
// clang-format on

namespace godwit::exchange::partition {

using memory::Extent;
using memory::Purpose;

Result<OldInstance> OldInstance::create(const Parts& parts) {
    if (parts.self != Side::old_instance) {
        return Error(ErrorCode::invalid_argument, "only the old instance divides a host");
    }
    return OldInstance(GODWIT_TRY(ProgramMover::create(parts)));
}

Status OldInstance::partition(const Division& division) {
    if (division.cpus.empty() || division.cpus.size() >= division.host_cpus.size() ||
        !std::ranges::includes(division.host_cpus, division.cpus)) {
        return Error(ErrorCode::invalid_argument,
                     "CPUs " + to_string(division.cpus) + " of " + to_string(division.host_cpus) +
                         " cannot be given away: each side needs at least one");
    }
    const Parts& parts = mover_.parts();
    fault_point("partition.old.1");
    GODWIT_TRY(parts.pool.table().register_owner(mover_.peer_owner()));
    fault_point("partition.old.2");
    for (const std::uint32_t cpu : division.host_cpus) {
        GODWIT_TRY(
            parts.region.add_cpu(cpu, division.cpus.contains(cpu) ? mover_.peer() : mover_.self()));
    }
    return division.frames == 0 ? ok() : give_frames(division.frames);
}

/// Cuts free frames off as one allocation and hands them over as free ones.
Status OldInstance::give_frames(std::uint64_t frames) {
    memory::Pool& pool = mover_.parts().pool;
    const auto taken = GODWIT_TRY(
        pool.allocate(mover_.self_owner(), frames, Purpose::instance, mover_.peer().value)
            .with_context("memory for the new instance"));
    for (const Extent& extent : taken) {
        const Extent unused = GODWIT_TRY(pool.table().relabel(extent, {}));
        GODWIT_TRY(pool.table().claim(unused, mover_.peer_owner()));
    }
    return ok();
}

Status OldInstance::drain() {
    stage_ = GODWIT_TRY(next(stage_, OldEvent::drain));
    fault_point("partition.old.3");
    return ok();
}

Status OldInstance::write_estate(std::chrono::nanoseconds notice) {
    const OldStage reached = GODWIT_TRY(next(stage_, OldEvent::drained));
    const Parts& parts = mover_.parts();
    std::vector<Extent> left;
    for (const Extent& extent : GODWIT_TRY(parts.pool.table().snapshot())) {
        if (extent.owner != mover_.self_owner()) {
            continue;
        }
        if (extent.label.purpose == Purpose::machine || extent.label.purpose == Purpose::program) {
            return Error(ErrorCode::busy,
                         "program " + std::to_string(extent.label.tag) + " has not left yet");
        }
        left.push_back(extent);
    }
    const auto cpus = parts.region.cpus_of(mover_.self());
    if (left.size() > Region::estate_extents_max || cpus.size() != 1) {
        return Error(ErrorCode::conflict,
                     "an estate is at most 64 extents and one CPU, not " +
                         std::to_string(left.size()) + " and " + std::to_string(cpus.size()));
    }
    const sys::Moment now = parts.clock.now();
    GODWIT_TRY(parts.region.write_estate({.generation = generation_ + 1,
                                          .written_at = now,
                                          .deadline = now + notice,
                                          .last_cpu = cpus.front(),
                                          .extents = std::move(left)}));
    ++generation_;
    stage_ = reached;
    fault_point("partition.old.4");
    return ok();
}

Status OldInstance::seal() {
    stage_ = GODWIT_TRY(next(stage_, OldEvent::seal));
    fault_point("partition.old.5");
    mover_.parts().region.seal_estate(generation_);
    fault_point("partition.old.6");
    discard(mover_.tell({.type = MessageType::estate, .subject = 0, .value = generation_}),
            "the sealed word is what counts, the message only wakes");
    return ok();
}

Status OldInstance::estate_refused(std::uint64_t generation) {
    if (generation != generation_) {
        return Error(ErrorCode::corrupt, "the refusal is of another estate");
    }
    stage_ = GODWIT_TRY(next(stage_, OldEvent::refused));
    mover_.parts().region.unseal_estate();
    return ok();
}

void OldInstance::heir_ended() noexcept {
    if (stage_ == OldStage::sealed) {
        mover_.parts().region.unseal_estate();
        stage_ = OldStage::draining;
    }
}

Status OldInstance::abort() {
    if (stage_ != OldStage::serving) {
        stage_ = GODWIT_TRY(next(stage_, OldEvent::abort));
    }
    // An offer that is claimed in this moment is the new instance's; it is asked to give it back.
    static_cast<void>(mover_.take_all_back());
    return mover_.tell({.type = MessageType::goodbye});
}

Result<Legacy> OldInstance::reclaim() {
    if (stage_ == OldStage::sealed || stage_ == OldStage::ended) {
        return Error(ErrorCode::conflict, "the estate is sealed: nothing can be taken back");
    }
    const Parts& parts = mover_.parts();
    Legacy legacy;
    GODWIT_TRY(claim_memory(parts.pool, mover_.peer_owner(), mover_.self_owner(), legacy));
    GODWIT_TRY(claim_tokens(parts.region, mover_.peer(), mover_.self(), legacy));
    mover_.forget_offers();
    return legacy;
}

} // namespace godwit::exchange::partition
