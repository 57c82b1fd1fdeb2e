#include "exchange/partition/program_mover.h"

#include "base/fault_point.h"
#include "memory/pool/extent_check.h"

#include <algorithm>

// clang-format off
/// Steps of one program's move, each with its undo. Numbers stand in fault points ("partition.give.2").
///
///   give  1  describe  extents and state into a slot: nothing, nobody was told
///         2  offer     take_back(): compare-and-swap on the program's word
///   take  1  read      the offer is copied and checked: refuse(), nothing was touched
///         2  claim     the program's word: the POINT OF NO RETURN of this program. Of a claim and a taking back one
///                      wins. Who dies after it leaves the program to the other by the partition map (inherit.h)
///         3  extents   each by compare-and-swap, in order: none, the heir finishes it
///         4  running   state frames are freed, the giver is told: none
// clang-format on

namespace godwit::exchange::partition {

using memory::Extent;
using memory::Purpose;

namespace {
Purpose purpose_of(ProgramKind kind) {
    return kind == ProgramKind::machine ? Purpose::machine : Purpose::program;
}
} // namespace

Result<ProgramMover> ProgramMover::create(const Parts& parts) {
    if (parts.region.names().pool_id != parts.pool.table().pool_id()) {
        return Error(ErrorCode::corrupt, "the region speaks of another memory pool");
    }
    const auto all = GODWIT_TRY(parts.pool.table().snapshot());
    GODWIT_TRY(memory::check_partition(all, parts.pool.table().frames()));
    return ProgramMover(parts);
}

InstanceId ProgramMover::self() const noexcept {
    return parts_.region.id_of(parts_.self);
}

InstanceId ProgramMover::peer() const noexcept {
    return parts_.region.id_of(other(parts_.self));
}

Status ProgramMover::tell(const Message& message) {
    GODWIT_TRY(parts_.region.send(parts_.self, message));
    if (parts_.doorbell != nullptr) {
        parts_.doorbell->signal();
    }
    return ok();
}

void ProgramMover::forget_offers() noexcept {
    std::ranges::fill(offers_, std::nullopt);
}

Result<std::size_t> ProgramMover::free_slot() const {
    for (std::size_t slot = 0; slot < Region::programs_max; ++slot) {
        const MaybeOwnership now = parts_.region.program_owner(slot);
        if (!offers_[slot].has_value() && (!now.has_value() || now->owner == self())) {
            return slot;
        }
    }
    return Error(ErrorCode::resource_exhausted, "256 programs were handed over in this exchange");
}

Result<std::size_t> ProgramMover::give(const Gift& gift) {
    const Purpose purpose = purpose_of(gift.kind);
    const auto all = GODWIT_TRY(parts_.pool.table().snapshot());
    const ProgramOffer program{.name = gift.name,
                               .kind = gift.kind,
                               .tag = gift.tag,
                               .memory = memory::extents_of(all, self_owner(), purpose, gift.tag),
                               .state =
                                   memory::extents_of(all, self_owner(), Purpose::state, gift.tag),
                               .state_bytes = gift.state_bytes};
    if (program.memory.empty()) {
        return Error(ErrorCode::not_found, "program '" + gift.name + "' has no memory in the pool");
    }
    const std::size_t slot = GODWIT_TRY(free_slot());
    fault_point("partition.give.1");
    const Ownership offered = GODWIT_TRY(parts_.region.offer(slot, self(), program));
    offers_[slot] = offered;
    fault_point("partition.give.2");
    const Status told = tell({.type = MessageType::offer,
                              .subject = static_cast<std::uint32_t>(slot),
                              .value = offered.epoch});
    if (!told.has_value()) {
        GODWIT_TRY(take_back(slot));
        return told.error();
    }
    return slot;
}

Fate ProgramMover::fate_of(std::size_t slot) const {
    const MaybeOwnership now = parts_.region.program_owner(slot);
    if (!now.has_value()) {
        return Fate::ours;
    }
    if (now->owner != self()) {
        return Fate::given;
    }
    return offers_[slot] == now ? Fate::offered : Fate::ours;
}

Status ProgramMover::take_back(std::size_t slot) {
    if (slot >= offers_.size() || !offers_[slot].has_value()) {
        return Error(ErrorCode::invalid_argument, "that program is not on offer");
    }
    GODWIT_TRY(parts_.region.claim_program(slot, *offers_[slot], self()));
    offers_[slot].reset();
    return ok();
}

std::vector<std::size_t> ProgramMover::take_all_back() {
    std::vector<std::size_t> lost;
    for (std::size_t slot = 0; slot < offers_.size(); ++slot) {
        if (fate_of(slot) == Fate::offered && !take_back(slot).has_value()) {
            lost.push_back(slot);
        }
    }
    return lost;
}

Status ProgramMover::give_cpu(std::uint32_t cpu) {
    const auto ours = parts_.region.cpus_of(self());
    const MaybeOwnership now = parts_.region.cpu_owner(cpu);
    if (!now.has_value() || now->owner != self() || ours.size() < 2) {
        return Error(ErrorCode::conflict,
                     "CPU " + std::to_string(cpu) +
                         " is not ours, or the last one: that is bequeathed");
    }
    fault_point("partition.give.cpu");
    const Ownership given = GODWIT_TRY(parts_.region.claim_cpu(cpu, *now, peer()));
    return tell({.type = MessageType::cpu, .subject = cpu, .value = given.epoch});
}

Result<std::vector<News>> ProgramMover::news() {
    std::vector<News> all;
    // One ring's worth at a time: a hostile writer does not keep us here.
    for (std::size_t i = 0; i < ring_messages_max; ++i) {
        const auto message = GODWIT_TRY(parts_.region.receive(parts_.self));
        if (!message.has_value()) {
            break;
        }
        all.push_back(*message);
    }
    return all;
}

Status ProgramMover::check_program(const ProgramOffer& program) const {
    const auto all = GODWIT_TRY(parts_.pool.table().snapshot());
    GODWIT_TRY(memory::check_list(
        program.memory,
        all,
        {.owner = peer_owner(), .purpose = purpose_of(program.kind), .tag = program.tag}));
    std::uint64_t state_frames = 0;
    if (!program.state.empty()) {
        GODWIT_TRY(memory::check_list(
            program.state,
            all,
            {.owner = peer_owner(), .purpose = Purpose::state, .tag = program.tag}));
        for (const Extent& extent : program.state) {
            state_frames += extent.run.frames;
        }
    }
    if (program.state_bytes > state_frames * memory::pool_frame_bytes) {
        return Error(ErrorCode::corrupt, "its saved state is larger than its frames");
    }
    return ok();
}

Result<Taken> ProgramMover::look(const News& offer) const {
    fault_point("partition.take.1");
    if (offer.type != MessageType::offer || offer.value > UINT32_MAX) {
        return Error(ErrorCode::invalid_argument, "that message offers no program");
    }
    Taken taken{.slot = offer.subject,
                .program = GODWIT_TRY(parts_.region.read_program(offer.subject))};
    GODWIT_TRY(check_program(taken.program).with_context("program '" + taken.program.name + "'"));
    return taken;
}

Status ProgramMover::claim_word(const News& offer) {
    fault_point("partition.take.2");
    GODWIT_TRY(parts_.region.claim_program(
        offer.subject,
        {.owner = peer(), .epoch = static_cast<std::uint32_t>(offer.value)},
        self()));
    return ok();
}

/// Of one that our instance has inherited in this moment, from a giver that has died, the claim is
/// made already.
Result<Extent> ProgramMover::claim_extent(const Extent& extent) {
    Result<Extent> claimed = parts_.pool.table().claim(extent, self_owner());
    if (claimed.has_value()) {
        return claimed;
    }
    for (const Extent& now : GODWIT_TRY(parts_.pool.table().snapshot())) {
        if (now.run == extent.run && now.owner == self_owner() && now.label == extent.label) {
            return now;
        }
    }
    return claimed;
}

Status ProgramMover::claim_extents(Taken& taken) {
    fault_point("partition.take.3");
    for (auto* list : {&taken.program.memory, &taken.program.state}) {
        for (Extent& extent : *list) {
            extent = GODWIT_TRY(claim_extent(extent));
            fault_point("partition.take.extent");
        }
    }
    return ok();
}

Result<Taken> ProgramMover::take(const News& offer) {
    Taken taken = GODWIT_TRY(look(offer));
    GODWIT_TRY(claim_word(offer));
    GODWIT_TRY(claim_extents(taken));
    return taken;
}

Status ProgramMover::move_extents(std::uint64_t tag,
                                  Purpose purpose,
                                  memory::PoolOwner from,
                                  memory::PoolOwner next) {
    const auto all = GODWIT_TRY(parts_.pool.table().snapshot());
    for (const Purpose wanted : {purpose, Purpose::state}) {
        for (const Extent& extent : memory::extents_of(all, from, wanted, tag)) {
            GODWIT_TRY(parts_.pool.table().claim(extent, next));
        }
    }
    return ok();
}

Status ProgramMover::give_back(const Taken& taken) {
    GODWIT_TRY(move_extents(
        taken.program.tag, purpose_of(taken.program.kind), self_owner(), peer_owner()));
    const MaybeOwnership now = parts_.region.program_owner(taken.slot);
    if (now.has_value() && now->owner == self()) {
        GODWIT_TRY(parts_.region.claim_program(taken.slot, *now, peer()));
    }
    return ok();
}

Status ProgramMover::take_back_claimed(std::size_t slot) {
    const ProgramOffer program = GODWIT_TRY(parts_.region.read_program(slot));
    const MaybeOwnership now = parts_.region.program_owner(slot);
    if (now.has_value() && (now->owner == peer() || offers_[slot] == now)) {
        GODWIT_TRY(parts_.region.claim_program(slot, *now, self()));
    }
    offers_[slot].reset();
    return move_extents(program.tag, purpose_of(program.kind), peer_owner(), self_owner());
}

Status ProgramMover::refuse(const News& offer, ErrorCode why) {
    return tell(
        {.type = MessageType::refused, .subject = offer.subject, .value = std::to_underlying(why)});
}

Status ProgramMover::running(const Taken& taken) {
    fault_point("partition.take.4");
    GODWIT_TRY(parts_.pool.free(taken.program.state));
    const auto owner = parts_.region.program_owner(taken.slot);
    return tell({.type = MessageType::running,
                 .subject = static_cast<std::uint32_t>(taken.slot),
                 .value = owner.has_value() ? owner->epoch : 0});
}

bool ProgramMover::is_ours(std::size_t slot) const {
    const auto owner = parts_.region.program_owner(slot);
    return owner.has_value() && owner->owner == self();
}

} // namespace godwit::exchange::partition
