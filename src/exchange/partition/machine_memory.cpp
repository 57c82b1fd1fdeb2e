#include "exchange/partition/machine_memory.h"

#include "base/log.h"

namespace godwit::exchange::partition {

Result<std::unique_ptr<MachineMemory>> MachineMemory::create(OfferedMachine offered,
                                                             const sys::Clock& clock) {
    memory::Pool pool = GODWIT_TRY(
        memory::Pool::adopt(std::move(offered.pool_memory), std::move(offered.pool_table)));
    Region region = GODWIT_TRY(Region::adopt(std::move(offered.region)));
    const News offer{.type = MessageType::offer, .subject = offered.slot, .value = offered.epoch};
    std::unique_ptr<MachineMemory> made(
        new MachineMemory(std::move(pool), std::move(region), offer, clock));
    made->mover_.emplace(GODWIT_TRY(ProgramMover::create({.pool = made->pool_,
                                                          .region = made->region_,
                                                          .clock = made->clock_,
                                                          .self = Side::new_instance})));
    return made;
}

Status MachineMemory::check(const machine::MachineSpec& spec) {
    Taken taken = GODWIT_TRY(mover_->look(offer_));
    if (taken.program.kind != ProgramKind::machine || taken.program.name != spec.name ||
        spec.memory.kind != memory::RamKind::pool ||
        memory::ram_runs(taken.program.memory) != spec.memory.runs) {
        return Error(ErrorCode::corrupt,
                     "the extents on offer are not the memory of machine '" + spec.name + "'");
    }
    taken_ = std::move(taken);
    return ok();
}

Status MachineMemory::claim() {
    if (!taken_.has_value()) {
        return Error(ErrorCode::internal, "the machine's memory was not checked");
    }
    return mover_->claim_word(offer_).with_context("the machine's memory is not on offer any more");
}

Status MachineMemory::take() {
    return mover_->claim_extents(*taken_);
}

void MachineMemory::give_back() noexcept {
    if (!taken_.has_value()) {
        return;
    }
    const Status given = mover_->give_back(*taken_);
    if (!given.has_value()) {
        // The giver takes it back itself, once this process has ended.
        log::warn("memory_not_given_back", {{"reason", given.error().to_string()}});
    }
}

} // namespace godwit::exchange::partition
