#include "control/suspend_run.h"

#include "base/fault_point.h"
#include "base/log.h"
#include "base/version.h"
#include "control/suspend_member.h"
#include "control/suspension.h"
#include "sys/stream.h"
#include "sys/unix_socket.h"

#include <sys/epoll.h>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include <algorithm>
#include <csignal>

namespace godwit::control {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds ready_time_max{15'000};
/// What an old VMM's own limits are longer than ours, so that it is us who give up.
constexpr milliseconds grace{10'000};
constexpr milliseconds request_time_max{5'000};

} // namespace

SuspendRun::SuspendRun(Supervisor& supervisor, Supervisor::SuspendRequest request)
    : supervisor_(supervisor), request_(std::move(request)),
      phases_(std::make_unique<Json>(Json::object())) {}

SuspendRun::~SuspendRun() = default;

void SuspendRun::enter(Step step, std::string_view phase, int number) {
    fault_point("control.suspend." + std::to_string(number));
    const sys::Moment now = supervisor_.parts_.clock.now();
    if (!phase_.empty()) {
        const std::int64_t before = phases_->value(phase_, std::int64_t{0}); // Of earlier groups.
        (*phases_)[phase_] = before + sys::microseconds_between(entered_at_, now);
    }
    entered_at_ = now;
    phase_ = phase;
    step_ = step;
    supervisor_.parts_.operations.set_phase(operation_, phase);
    supervisor_.parts_.events.append("suspension", "", {{"phase", phase}});
}

void SuspendRun::arm(milliseconds delay, std::move_only_function<void()> action) {
    auto timer = supervisor_.parts_.loop.schedule(
        delay, {}, [weak = weak_from_this(), action = std::move(action)]() mutable {
            if (const auto self = weak.lock()) {
                action();
            }
        });
    if (timer.has_value()) {
        timer_ = std::move(*timer);
    }
}

bool SuspendRun::concerns(const std::string& machine) const {
    return std::ranges::any_of(members_, [&](const auto& m) { return m->name == machine; });
}

void SuspendRun::start(std::uint64_t operation) {
    operation_ = operation;
    enter(Step::plan, "plan", 1);
    plan();
    check_daemon();
}

/// Everything that can be known without starting anything.
void SuspendRun::plan() {
    for (const std::string& name : request_.machines) {
        auto member = std::make_unique<Member>();
        member->name = name;
        const Result<MachineEntry*> entry = supervisor_.find_idle(name);
        if (!entry.has_value()) {
            member->blocked = entry.error().to_string();
        } else if ((*entry)->record == nullptr) {
            member->blocked = "its VMM has not handed out its owner record";
        } else if ((*entry)->state() == "frozen") {
            member->blocked = Supervisor::frozen_blocker;
        } else {
            member->source = (*entry)->owner;
            member->record = (*entry)->record;
            (*entry)->operation = operation_;
        }
        members_.push_back(std::move(member));
    }
    for (const std::string& program :
         {request_.vmm_program, request_.daemon_program, supervisor_.parts_.keeper_program}) {
        if (!program.empty() && ::access(program.c_str(), X_OK) != 0) {
            host_blockers_.push_back(Error::from_errno(errno, "use '" + program + "'").to_string());
        }
    }
}

/// Machines without a blocker go on to prepare even if others have some: their new VMMs may find
/// more, and all are told together.
void SuspendRun::daemon_checked() {
    const bool usable = host_blockers_.empty();
    enter(Step::prepare, "prepare", 2);
    if (usable && members_.empty()) {
        note_and_replace(); // Nothing to suspend: only godwitd is replaced.
        return;
    }
    for (const auto& member : members_) {
        if (!member->blocked.empty()) {
            member->stage = Stage::failed;
        } else if (!usable) {
            member->stage = Stage::failed;
            member->blocked = "";
        }
    }
    arm(request_.prepare + ready_time_max, [this] {
        for (const auto& member : members_) {
            if (member->stage < Stage::ready) {
                member_failed(*member,
                              Error(ErrorCode::timeout, "the new VMM was not built in time"));
            }
        }
    });
    for (const auto& member : members_) {
        if (member->stage != Stage::failed) {
            const Status launched = launch(*member);
            if (!launched.has_value()) {
                member_failed(*member, launched.error());
            }
        }
    }
    look();
}

Status SuspendRun::launch(Member& member) {
    MachineEntry& entry = *GODWIT_TRY(supervisor_.find_or_error(member.name));
    auto [keeper_end, source_end] = GODWIT_TRY(sys::MessageSocket::pair());
    auto [successor_end, offer_end] = GODWIT_TRY(sys::MessageSocket::pair());
    sys::Pipe lifeline = GODWIT_TRY(sys::create_pipe());
    const auto start = [&](const std::string& program, const sys::Fd& incoming) {
        Reply<void> ready([weak = weak_from_this(), raw = &member](const Status& outcome) {
            if (const auto self = weak.lock()) {
                self->member_ready(*raw, outcome);
            }
        });
        auto made = VmmInstance::launch(supervisor_.parts_.loop,
                                        supervisor_.parts_.run,
                                        {.program = program,
                                         .machine = member.name,
                                         .source = {},
                                         .incoming = &incoming,
                                         .ready_time_max = ready_time_max},
                                        supervisor_,
                                        ready);
        ready.dismiss();
        return made;
    };
    member.stage = Stage::starting;
    member.keeper = GODWIT_TRY(start(supervisor_.parts_.keeper_program, keeper_end.fd()));
    entry.others.push_back(member.keeper);
    member.successor = GODWIT_TRY(start(request_.vmm_program, successor_end.fd()));
    entry.others.push_back(member.successor);
    member.source_end = std::move(source_end).take();
    member.offer_end = std::move(offer_end).take();
    member.lifeline_near = std::move(lifeline.write_end);
    member.lifeline_far = std::move(lifeline.read_end);
    return ok();
}

void SuspendRun::member_ready(Member& member, const Status& outcome) {
    if (member.stage != Stage::starting || step_ != Step::prepare) {
        return;
    }
    const Status connected = !outcome.has_value()       ? outcome
                             : ++member.ready_count < 2 ? ok()
                                                        : connect(member);
    if (!connected.has_value()) {
        member_failed(member, connected.error());
    }
}

/// Both are there: the old VMM gets its keeper, the keeper its new VMM.
Status SuspendRun::connect(Member& member) {
    fault_point("control.suspend.3");
    member.stage = Stage::preparing;
    const auto refused = [weak = weak_from_this(), raw = &member](const Result<Json>& answer) {
        if (const auto self = weak.lock(); self != nullptr && !answer.has_value()) {
            self->member_failed(*raw, answer.error());
        }
    };
    member.keeper->call(
        "drive", Json::object(), request_time_max, Reply<Json>(refused), &member.lifeline_far);
    member.keeper->call(
        "attach", Json::object(), request_time_max, Reply<Json>(refused), &member.offer_end);
    const milliseconds deadline = request_.deadline + grace;
    member.asked = true;
    member.source->call(
        "exchange",
        {{"deadline_ms", deadline.count()}, {"prepare_ms", (request_.prepare + grace).count()}},
        deadline + request_.prepare + 3 * grace,
        Reply<Json>([weak = weak_from_this(), raw = &member](Result<Json> answer) {
            if (const auto self = weak.lock()) {
                self->source_answered(*raw, std::move(answer));
            }
        }),
        &member.source_end);
    member.lifeline_far.reset();
    member.offer_end.reset();
    member.source_end.reset();
    return ok();
}

void SuspendRun::keeper_reached(const VmmInstance& vmm, const std::string& step) {
    for (const auto& member : members_) {
        if (member->keeper.get() != &vmm) {
            continue;
        }
        if (step == "ready" && member->stage == Stage::preparing) {
            member->stage = Stage::ready;
        } else if (step == "held" && member->stage == Stage::holding) {
            member->stage = Stage::held;
        } else if (member->stage == Stage::released && (step == "kept" || step == "over")) {
            member->stage = Stage::over; // Kept again: nobody takes it now.
        }
        look();
        return;
    }
}

void SuspendRun::instance_ended(const VmmInstance& vmm) {
    for (const auto& member : members_) {
        if (&vmm == member->source.get()) {
            member->source_gone = true;
        } else if (&vmm == member->keeper.get() && member->stage == Stage::released) {
            member->stage = Stage::over;
        } else if (&vmm == member->keeper.get() && member->stage < Stage::committed) {
            member_failed(*member, Error(ErrorCode::peer_closed, "its keeper: " + vmm.trouble()));
        } else if (&vmm == member->successor.get() && member->stage < Stage::committed) {
            // Its keeper has noticed too and gives the machine back.
            member_failed(*member, Error(ErrorCode::peer_closed, "the new VMM: " + vmm.trouble()));
        }
    }
    look();
}

/// The old VMM's report, or why there is none.
void SuspendRun::source_answered(Member& member, Result<Json> answer) {
    member.asked = false;
    if (answer.has_value()) {
        *member.source_report = *answer;
    }
    const std::string outcome =
        answer.has_value() ? text_member(*answer, "outcome") : std::string("unknown");
    if (outcome == "failed_after_commit" && !member.is_committed()) {
        reclaim(member); // Also if it has counted as failed since its keeper is gone.
    }
    if (outcome == "done" || member.stage >= Stage::committed) {
        look();
        return;
    }
    if (!answer.has_value() && answer.error().code() == ErrorCode::peer_closed &&
        member.stage >= Stage::holding && member.stage < Stage::failed) {
        // It died. Its keeper holds the machine, or says so by its own end.
        look();
        return;
    }
    member_failed(member,
                  answer.has_value()
                      ? Error(ErrorCode::conflict, text_member(*answer, "reason", "no reason"))
                      : answer.error());
}

/// The keeper is gone between claim and commit, or came too late: the old VMM has everything.
void SuspendRun::reclaim(Member& member) {
    const handover::Ownership now = member.record->read();
    const bool ours = now.owner == member.source->instance();
    if (member.reclaiming || (!ours && now.tenure != handover::Tenure::claimed)) {
        return;
    }
    member.reclaiming = true;
    const auto weak = weak_from_this();
    const auto told = [weak, raw = &member](const Result<Json>& answer) {
        if (const auto self = weak.lock(); self != nullptr && answer.has_value()) {
            raw->reclaiming = false;
            self->look();
        } else if (self != nullptr) {
            raw->source->refresh_status(
                Reply<void>([weak, raw, why = answer.error().to_string()](const Status&) {
                    if (const auto again = weak.lock()) {
                        again->not_reclaimed(*raw, why);
                    }
                }));
        }
    };
    member.source->call("reclaim", Json::object(), request_time_max, Reply<Json>(told));
}

/// It was told to take its guest back and did not, or it runs the guest already.
void SuspendRun::not_reclaimed(Member& member, const std::string& why) {
    const auto& status = member.source->status();
    member.frozen = member.source->alive() && status.has_value() && status->state == "frozen";
    if (member.frozen) {
        member.trouble += "; it was told to go on and could not: " + why;
    }
    member.reclaiming = false;
    look();
}

void SuspendRun::member_failed(Member& member, const Error& why) {
    if (member.stage >= Stage::committed) {
        return;
    }
    if (member.stage != Stage::failed) {
        member.stage = Stage::failed;
        member.trouble = why.to_string();
        log::warn("suspension_failed", {{"machine", member.name}, {"reason", member.trouble}});
        if (member.keeper != nullptr && member.keeper->alive() && any_committed_) {
            member.keeper->call("abort", Json::object(), request_time_max, Reply<Json>());
        } else if (member.keeper != nullptr && member.keeper->alive() && step_ != Step::prepare) {
            give_up(why);
        }
    }
    look();
}

void SuspendRun::note_and_replace() {
    enter(Step::over, "exchange", 7);
    timer_.reset();
    const std::shared_ptr<SuspendRun> keep = shared_from_this();
    const Json note = report();
    const Status written = Suspension::write_note(supervisor_.parts_.run, note);
    if (!written.has_value()) {
        // The machines go on by themselves; only the report is poorer.
        log::error("suspension_note_lost", {{"reason", written.error().to_string()}});
    }
    for (const auto& member : members_) {
        MachineEntry* const entry = supervisor_.find(member->name);
        if (entry != nullptr && member->is_committed()) {
            entry->program = request_.vmm_program;
        }
    }
    if (request_.daemon_program.empty()) {
        supervisor_.suspension_ =
            std::make_unique<Suspension>(supervisor_, std::make_unique<Json>(note), operation_);
        members_.clear();
        supervisor_.suspension_->begin();
        supervisor_.suspend_.reset();
        return;
    }
    fault_point("control.suspend.8");
    supervisor_.parts_.replace(request_.daemon_program, request_.vmm_program);
}

Status SuspendRun::cancel() {
    if (any_committed_ || step_ >= Step::giving_up) {
        return Error(ErrorCode::conflict,
                     "the exchange is past the point where it can be cancelled (" + phase_ + ")");
    }
    give_up(Error(ErrorCode::cancelled, "the exchange was cancelled"));
    return ok();
}

void SuspendRun::give_up(const Error& why) {
    if (any_committed_ || step_ >= Step::giving_up) {
        return;
    }
    why_ = why;
    enter(Step::giving_up, "abort", 9);
    timer_.reset();
    for (const auto& member : members_) {
        for (const auto& process : {member->keeper, member->successor}) {
            if (process != nullptr && process->alive() && !member->asked) {
                process->kill("the exchange was given up before it began");
            }
        }
        if (member->asked && member->keeper->alive()) {
            member->keeper->call("abort", Json::object(), request_time_max, Reply<Json>());
        }
    }
    arm(grace + request_.deadline, [this] { finish_given_up(); });
    look();
}

void SuspendRun::finish_given_up() {
    if (step_ == Step::over) {
        return;
    }
    enter(Step::over, "abort", 10);
    timer_.reset();
    const std::shared_ptr<SuspendRun> keep = shared_from_this();
    const std::vector<std::string> all = blockers();
    std::string text = why_->to_string();
    for (const std::string& blocker : all) {
        text += "; " + blocker;
    }
    for (const auto& member : members_) {
        if (member->successor != nullptr && member->successor->alive()) {
            member->successor->kill("the exchange was given up");
        }
        if (member->source != nullptr && member->source->alive()) {
            member->source->refresh_status(Reply<void>());
        }
    }
    const Json final = report();
    supervisor_.history_.append(final);
    supervisor_.parts_.events.append("exchanged_all", "", {{"report", final}});
    const bool frozen = std::ranges::any_of(members_, [](const auto& m) { return m->frozen; });
    supervisor_.parts_.operations.fail(
        operation_,
        Error(why_->code(),
              std::string("the exchange was rolled back, ") +
                  (frozen ? "but not every guest runs on; let it go on with 'godwit recover': "
                          : "all guests run on: ") +
                  text),
        final);
    supervisor_.suspend_.reset();
}

/// What is known here; the machines' ends are added by whoever sees them.
Json SuspendRun::report() const {
    Json machines = Json::array();
    for (const auto& member : members_) {
        machines.push_back(member->to_json());
    }
    return {{"operation", request_.all ? "exchange-all" : "exchange"},
            {"mode", "suspend"},
            {"id", request_.id},
            {"outcome", "rolled_back"},
            {"reason", why_.has_value() ? why_->to_string() : ""},
            {"blockers", blockers()},
            {"daemon_build_ids", {build_id(), ""}},
            {"daemon_replaced", !request_.daemon_program.empty()},
            {"phases_us", *phases_},
            {"machines", machines}};
}

} // namespace godwit::control
