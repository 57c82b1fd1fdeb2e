#include "sim/source_parts.h"

namespace godwit::sim {

Status take_step(World& world, const Process& process, const VmmFaults& faults) {
    Executor& executor = world.executor();
    executor.let_pass(executor.dice().up_to(faults.step_time_max));
    if (!process.alive) {
        return Error(ErrorCode::peer_closed, "this process is dead");
    }
    if (executor.dice().one_in(faults.step_fails_odds)) {
        return Error(ErrorCode::io, "a step failed by seed");
    }
    return ok();
}

Status SimulatedMachine::quiesce(std::chrono::milliseconds) {
    return take_step(world_, process_, faults_);
}

Status SimulatedMachine::pause(std::chrono::milliseconds) {
    GODWIT_TRY(take_step(world_, process_, faults_));
    world_.stop_executing(process_);
    stopped_at_ = world_.executor().now();
    return ok();
}

Status SimulatedMachine::resume() {
    world_.executor().yield();
    if (!process_.executes) {
        world_.begin_executing(process_);
    }
    return ok();
}

Result<handover::Remaining> SimulatedCarrier::sync() {
    GODWIT_TRY(take_step(world_, process_, faults_));
    if (rounds_ == 0) {
        return handover::Remaining{};
    }
    --rounds_;
    return handover::Remaining{.bytes = 1U << 30U, .bytes_per_second = 1};
}

Status SimulatedDestination::send(Packet packet) {
    world_.executor().yield();
    if (!process_.alive) {
        return Error(ErrorCode::peer_closed, "this process is dead");
    }
    packet.from = process_.id;
    world_.note(process_.name + " sends " + std::string(name_of(packet.kind)));
    return link_.send(packet);
}

Status SimulatedDestination::introduce(std::vector<std::string>&,
                                       std::chrono::milliseconds timeout) {
    peer_ = GODWIT_TRY(link_.expect(Kind::hello, timeout)).from;
    return ok();
}

Status SimulatedDestination::prepare(std::chrono::milliseconds timeout) {
    GODWIT_TRY(send({.kind = Kind::offer, .epoch = epoch_}));
    GODWIT_TRY(link_.expect(Kind::prepared, timeout));
    return ok();
}

Status SimulatedDestination::offer() {
    return send({.kind = Kind::take_over, .copy = process_.copy});
}

Result<handover::Resumed> SimulatedDestination::await_resumed(std::chrono::milliseconds timeout) {
    const Packet running = GODWIT_TRY(link_.expect(Kind::running, timeout));
    return handover::Resumed{.ownership = {.owner = peer_, .epoch = running.epoch},
                             .claimed_at = running.claimed_at,
                             .first_entry_at = running.first_entry_at};
}

Result<handover::Settled> SimulatedDestination::settle(std::chrono::milliseconds timeout) {
    GODWIT_TRY(send({.kind = Kind::settle}));
    GODWIT_TRY(link_.expect(Kind::settled, timeout));
    return handover::Settled{.frames_sampled = 1, .frames_identical = 1};
}

void SimulatedDestination::abort(const Error&) noexcept {
    discard(send({.kind = Kind::abort}), "it may be gone already");
}

} // namespace godwit::sim
