#include "sim/vmm.h"

#include "sim/source_parts.h"

#include <algorithm>
#include <array>

namespace godwit::sim {

namespace {

// As in exchange/destination.cpp.
constexpr std::chrono::seconds offer_timeout{30};
constexpr std::chrono::minutes take_over_timeout{10};
constexpr std::chrono::seconds settle_timeout{5};
constexpr sys::Nanoseconds for_ever{-1};

class Vmm {
  public:
    Vmm(World& world, Process& process, const VmmFaults& faults)
        : world_(world), process_(process), faults_(faults) {}

    void live(std::shared_ptr<LinkEnd> incoming) {
        if (incoming != nullptr) {
            const Status taken = take_over(*incoming);
            if (!taken.has_value()) {
                world_.end(process_, "takeover failed: " + taken.error().to_string());
                return;
            }
            incoming.reset();
        }
        while (process_.alive) {
            world_.executor().wait([this] { return !process_.calls.empty(); }, for_ever);
            if (process_.alive && !process_.calls.empty()) {
                serve();
            }
        }
    }

  private:
    // The destination's end.

    Status take_over(LinkEnd& source) {
        GODWIT_TRY(send(source, {.kind = Kind::hello}));
        const Packet offer = GODWIT_TRY(source.expect(Kind::offer, offer_timeout));
        GODWIT_TRY(tell(source, take_step(world_, process_, faults_))); // build
        GODWIT_TRY(send(source, {.kind = Kind::prepared}));
        const Packet state = GODWIT_TRY(source.expect(Kind::take_over, take_over_timeout));
        if (process_.alive) {
            process_.copy = state.copy;
        }
        GODWIT_TRY(tell(source, take_step(world_, process_, faults_))); // load
        const handover::Ownership offered{.owner = offer.from, .epoch = offer.epoch};
        const auto claimed = GODWIT_TRY(tell(source, claim(offered)));
        const sys::Moment claimed_at = world_.executor().now();
        world_.executor().yield();
        const auto mine = GODWIT_TRY(tell(source, process_.record.confirm(claimed)));
        world_.executor().yield();
        world_.begin_executing(process_);
        discard(send(source,
                     {.kind = Kind::running,
                      .epoch = mine.epoch,
                      .claimed_at = claimed_at,
                      .first_entry_at = world_.executor().now()}),
                "the source may have died; the guest runs here");
        const auto question = source.expect(Kind::settle, settle_timeout);
        if (question.has_value()) {
            discard(send(source, {.kind = Kind::settled}), "the report is poorer without it");
        }
        return ok();
    }

    Result<handover::Ownership> claim(const handover::Ownership& offered) {
        world_.executor().yield();
        auto claimed = process_.record.claim(offered, process_.id);
        if (claimed.has_value() && process_.alive) {
            process_.machine.claimed_from = offered.owner;
            world_.note(process_.name + " claims epoch " + std::to_string(claimed->epoch));
        }
        return claimed;
    }

    template <typename T>
    Result<T> tell(LinkEnd& source, Result<T> result) {
        if (!result.has_value()) {
            discard(send(source, {.kind = Kind::failed}), "the source may be gone");
        }
        return result;
    }

    Status send(LinkEnd& link, Packet packet) {
        world_.executor().yield();
        if (!process_.alive) {
            return Error(ErrorCode::peer_closed, "this process is dead");
        }
        packet.from = process_.id;
        world_.note(process_.name + " sends " + std::string(name_of(packet.kind)));
        return link.send(packet);
    }

    // The owner's end.

    void serve() {
        const std::shared_ptr<Call> call = process_.calls.front();
        process_.calls.pop_front();
        if (call->method == Call::Method::exchange) {
            exchange(*call);
        } else {
            call->answered = true; // It keeps no frozen guest.
        }
    }

    void exchange(Call& call) {
        handover::Ownership expected = process_.record.read();
        expected.epoch = call.epoch;
        const std::shared_ptr<LinkEnd> successor = std::move(call.successor);
        const handover::Report report = hand_over(call, *successor, expected);
        world_.check_report(process_, report);
        if (!process_.alive) {
            return;
        }
        call.outcome = report.outcome;
        call.answered = true;
        if (report.outcome == handover::Outcome::done) {
            world_.end(process_, "its guest runs at " + to_string(report.after.owner));
        } else if (report.outcome == handover::Outcome::failed_after_commit) {
            keep_frozen(*successor,
                        {.owner = report.after.owner,
                         .epoch = report.before.epoch + 1,
                         .tenure = handover::Tenure::claimed});
        }
    }

    handover::Report
    hand_over(const Call& call, LinkEnd& successor, const handover::Ownership& expected) {
        SimulatedMachine machine(world_, process_, faults_);
        SimulatedCarrier memory(world_, process_, faults_);
        SimulatedCarrier state(world_, process_, faults_);
        const std::array<handover::Carrier*, 2> carriers{&memory, &state};
        SimulatedDestination destination(world_, process_, successor, expected.epoch);
        return handover::run_handover({.machine = machine,
                                       .destination = destination,
                                       .carriers = carriers,
                                       .record = process_.record,
                                       .self = process_.id,
                                       .expected = expected,
                                       .limits = {},
                                       .clock = world_.executor(),
                                       .cancel = &call.cancelled,
                                       .progress = {}},
                                      handover::Report{.machine = process_.machine.name});
    }

    /// Until the successor says that it runs after all, or somebody reclaims the guest.
    void keep_frozen(LinkEnd& successor, const handover::Ownership& lost_to) {
        process_.frozen = true;
        process_.lost_to = lost_to;
        bool listening = true;
        while (process_.alive && process_.frozen) {
            world_.executor().wait(
                [&] { return !process_.calls.empty() || (listening && successor.readable()); },
                for_ever);
            if (!process_.alive) {
                return;
            }
            if (!process_.calls.empty()) {
                const std::shared_ptr<Call> call = process_.calls.front();
                process_.calls.pop_front();
                call->succeeded = call->method == Call::Method::reclaim && reclaim(lost_to);
                call->answered = true;
            } else if (listening && successor.readable()) {
                listening = false;
                if (successor.expect(Kind::running, sys::Nanoseconds(0)).has_value() &&
                    process_.record.read() != lost_to) {
                    world_.end(process_, "its successor runs the guest after all");
                }
            }
        }
    }

    bool reclaim(const handover::Ownership& lost_to) {
        world_.executor().yield();
        if (!process_.record.transfer(lost_to, process_.id).has_value()) {
            return false;
        }
        world_.note(process_.name + " reclaims the guest");
        world_.executor().yield();
        world_.begin_executing(process_);
        return process_.alive;
    }

    World& world_;
    Process& process_;
    VmmFaults faults_;
};

} // namespace

void start_vmm(World& world,
               Process& process,
               const VmmFaults& faults,
               std::shared_ptr<LinkEnd> incoming) {
    process.task = world.executor().spawn(
        process.name,
        [vmm = std::make_shared<Vmm>(world, process, faults), end = std::move(incoming)]() mutable {
            vmm->live(std::move(end));
        });
}

} // namespace godwit::sim
