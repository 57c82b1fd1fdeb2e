#include "control/exchange_all.h"

#include "base/log.h"
#include "control/plan_run.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace godwit::control {

namespace {

bool failed(MachineOutcome outcome) {
    switch (outcome) {
    case MachineOutcome::rolled_back:
    case MachineOutcome::failed_after_commit:
    case MachineOutcome::lost:
    case MachineOutcome::refused:
        return true;
    case MachineOutcome::waiting:
    case MachineOutcome::under_way:
    case MachineOutcome::done:
    case MachineOutcome::current:
    case MachineOutcome::not_tried:
        return false;
    }
    return true;
}

std::string joined(const std::vector<std::string>& blockers) {
    std::string text;
    for (const std::string& blocker : blockers) {
        text += (text.empty() ? "" : "; ") + blocker;
    }
    return text;
}

MachineResult result_of(const MachinePlan& plan, const std::string& new_build) {
    MachineResult result;
    result.machine = plan.machine.name;
    result.build_ids = {plan.build_id, plan.build_id};
    if (plan.action == PlannedAction::nothing) {
        result.outcome = MachineOutcome::current;
    } else if (plan.action == PlannedAction::refused) {
        result.outcome = MachineOutcome::refused;
        result.phase = "plan";
        result.reason = joined(plan.blockers);
    } else {
        result.build_ids[1] = new_build;
    }
    return result;
}

} // namespace

ExchangeAll::ExchangeAll(Supervisor& supervisor, Supervisor::ExchangeAllRequest request)
    : supervisor_(supervisor), request_(std::move(request)) {}

ExchangeAll::~ExchangeAll() = default;

void ExchangeAll::start(std::uint64_t operation) {
    operation_ = operation;
    started_at_ = supervisor_.parts_.clock.now();
    supervisor_.parts_.operations.set_phase(operation_, "plan");
    const std::weak_ptr<ExchangeAll> weak = weak_from_this();
    supervisor_.make_plan(request_, Reply<ExchangePlan>([weak](Result<ExchangePlan> plan) {
                              if (const auto self = weak.lock()) {
                                  self->planned(std::move(plan));
                              }
                          }));
}

void ExchangeAll::planned(Result<ExchangePlan> plan) {
    if (plan.has_value() && !plan->trouble.empty()) {
        plan = Error(ErrorCode::unsupported, plan->trouble); // Of no use for any machine.
    }
    if (!plan.has_value()) {
        step_ = Step::over;
        const std::shared_ptr<ExchangeAll> keep = shared_from_this();
        supervisor_.all_.reset();
        supervisor_.parts_.operations.fail(operation_, plan.error(), Json());
        return;
    }
    summary_ = {.mode = std::string(name_of(plan->mode)),
                .program = plan->program,
                .build_id = plan->build_id,
                .order = std::string(name_of(plan->order)),
                .concurrency = plan->concurrency,
                .total_us = 0,
                .cancelled = stopping_};
    for (const MachinePlan& machine : plan->machines) {
        machines_.push_back(result_of(machine, plan->build_id));
    }
    // With a blocker somewhere and "stop on failure" nothing begins: the plan is there to be read.
    const bool all_or_none =
        request_.on_failure == Supervisor::OnFailure::stop || plan->mode == ExchangeMode::partition;
    stopping_ = stopping_ || (all_or_none && count(MachineOutcome::refused) > 0);
    if (plan->mode == ExchangeMode::partition && !stopping_) {
        divide();
        return;
    }
    begin_machines();
}

void ExchangeAll::begin_machines() {
    step_ = Step::running;
    supervisor_.parts_.operations.set_phase(operation_, "exchange");
    pump();
}

std::size_t ExchangeAll::count(MachineOutcome outcome) const noexcept {
    return static_cast<std::size_t>(
        std::ranges::count(machines_, outcome, &MachineResult::outcome));
}

void ExchangeAll::pump_later() {
    const std::weak_ptr<ExchangeAll> weak = weak_from_this();
    supervisor_.parts_.loop.post([weak] {
        if (const auto self = weak.lock()) {
            self->pump();
        }
    });
}

void ExchangeAll::pump() {
    if (step_ != Step::running) {
        return;
    }
    for (MachineResult& machine : machines_) {
        if (stopping_ || count(MachineOutcome::under_way) >= summary_.concurrency) {
            break;
        }
        if (machine.outcome == MachineOutcome::waiting) {
            begin(machine);
        }
    }
    const bool waiting = !stopping_ && count(MachineOutcome::waiting) > 0;
    if (!waiting && count(MachineOutcome::under_way) == 0) {
        conclude();
        return;
    }
    supervisor_.parts_.operations.set_progress(operation_, progress_of(machines_));
}

void ExchangeAll::conclude() {
    if (division_ != nullptr) {
        leave_or_return();
    } else {
        finish();
    }
}

void ExchangeAll::begin(MachineResult& machine) {
    machine.outcome = MachineOutcome::under_way;
    machine.phase = "plan";
    begun_at_[machine.machine] = supervisor_.parts_.clock.now();
    tell(machine);
    const Result<std::uint64_t> begun = supervisor_.exchange(machine.machine, request_.exchange);
    if (!begun.has_value() && machine.outcome == MachineOutcome::under_way) {
        end(machine, MachineOutcome::refused, begun.error().to_string());
    }
}

void ExchangeAll::end(MachineResult& machine, MachineOutcome outcome, const std::string& reason) {
    machine.outcome = outcome;
    machine.reason = outcome == MachineOutcome::done ? std::string() : reason;
    if (outcome != MachineOutcome::done) {
        machine.build_ids[1] = machine.build_ids[0];
    }
    if (const auto begun = begun_at_.find(machine.machine); begun != begun_at_.end()) {
        machine.total_us = sys::microseconds_between(begun->second, supervisor_.parts_.clock.now());
    }
    if (failed(outcome) &&
        (request_.on_failure == Supervisor::OnFailure::stop || division_ != nullptr)) {
        stopping_ = true;
    }
    tell(machine);
    // Not from in here: the one that has just ended may be in the middle of its last words.
    pump_later();
}

void ExchangeAll::tell(const MachineResult& machine) {
    const std::size_t open = count(MachineOutcome::waiting) + count(MachineOutcome::under_way);
    supervisor_.parts_.events.append("exchange_all",
                                     machine.machine,
                                     {{"operation", operation_},
                                      {"outcome", name_of(machine.outcome)},
                                      {"ended", machines_.size() - open},
                                      {"total", machines_.size()}});
}

MachineResult* ExchangeAll::find_under_way(const std::string& machine) {
    const auto found = std::ranges::find_if(machines_, [&](const MachineResult& result) {
        return result.machine == machine && result.outcome == MachineOutcome::under_way;
    });
    return found == machines_.end() ? nullptr : &*found;
}

void ExchangeAll::phase_reached(const std::string& machine, const std::string& phase) {
    if (MachineResult* const found = find_under_way(machine); found != nullptr) {
        found->phase = phase;
        supervisor_.parts_.operations.set_progress(operation_, progress_of(machines_));
    }
}

void ExchangeAll::exchange_ended(const std::string& machine, const Json& report) {
    if (step_ == Step::returning && machine == returning_) {
        const auto back = std::ranges::find(machines_, machine, &MachineResult::machine);
        returned(*back, text_member(report, "outcome") == "done", text_member(report, "reason"));
        return;
    }
    MachineResult* const found = find_under_way(machine);
    if (found == nullptr) {
        return;
    }
    const MachineOutcome outcome = outcome_named(text_member(report, "outcome"));
    if (outcome == MachineOutcome::done) {
        const Json blackout = report.value("blackout_us", Json());
        found->blackout_us = blackout.is_number_integer() ? blackout.get<std::int64_t>() : -1;
        found->phase = "settle";
    } else {
        found->phase = text_member(report, "failed_step", found->phase);
    }
    if (division_ != nullptr) {
        const bool open = outcome == MachineOutcome::failed_after_commit;
        const bool over = outcome == MachineOutcome::done || (open && went_over(machine));
        // Claimed and not run, it is decided by its recovery; until then nothing is taken back.
        if (over || !open) {
            division_->exchange_ended(machine, over);
        }
    }
    const std::string new_build = found->build_ids[1];
    end(*found, outcome, text_member(report, "reason"));
    if (outcome == MachineOutcome::failed_after_commit || outcome == MachineOutcome::lost) {
        found->build_ids[1] = new_build;
    }
}

void ExchangeAll::machine_gone(const std::string& machine) {
    if (MachineResult* const found = find_under_way(machine); found != nullptr) {
        end(*found, MachineOutcome::lost, "the machine ended during its exchange");
    }
}

Status ExchangeAll::cancel() {
    if (step_ == Step::bequeathing || step_ == Step::returning) {
        return Error(ErrorCode::conflict,
                     step_ == Step::returning ? "everything is on its way back already"
                                              : "the new godwitd is taking the rest over");
    }
    stopping_ = true;
    summary_.cancelled = true;
    for (const MachineResult& machine : machines_) {
        const MachineEntry* const entry = supervisor_.find(machine.machine);
        if (machine.outcome == MachineOutcome::under_way && entry != nullptr) {
            const Status cancelled = supervisor_.parts_.operations.cancel(entry->operation);
            if (!cancelled.has_value()) {
                log::info(
                    "exchange_not_cancelled",
                    {{"machine", machine.machine}, {"reason", cancelled.error().to_string()}});
            }
        }
    }
    pump_later();
    return ok();
}

namespace {

/// For people: what became of them, and what is left to do.
std::string text_of(std::span<const MachineResult> machines) {
    std::size_t new_build = 0;
    std::size_t untouched = 0;
    std::string trouble;
    for (const MachineResult& machine : machines) {
        const MachineOutcome outcome = machine.outcome;
        new_build +=
            outcome == MachineOutcome::done || outcome == MachineOutcome::current ? 1U : 0U;
        untouched += outcome == MachineOutcome::not_tried ? 1U : 0U;
        if (failed(outcome) && trouble.size() < 800) {
            trouble += "; " + machine.machine + " (" + std::string(name_of(outcome)) +
                       "): " + machine.reason.substr(0, 300);
        }
    }
    return std::to_string(new_build) + " of " + std::to_string(machines.size()) +
           " machines run the new build, " + std::to_string(untouched) +
           " were not tried and run the old one" + trouble;
}

} // namespace

Json ExchangeAll::make_report() {
    for (MachineResult& machine : machines_) {
        if (machine.outcome == MachineOutcome::waiting) {
            machine.outcome = MachineOutcome::not_tried;
            machine.build_ids[1] = machine.build_ids[0];
        }
    }
    summary_.total_us = sys::microseconds_between(started_at_, supervisor_.parts_.clock.now());
    Json report = total_report(summary_, machines_);
    report["finished"] = time_text(supervisor_.parts_.clock.unix_nanoseconds());
    if (division_ != nullptr) {
        report["partition"] = division_->facts();
    }
    return report;
}

void ExchangeAll::finish() {
    step_ = Step::over;
    const Json report = make_report();
    const std::shared_ptr<ExchangeAll> keep = shared_from_this();
    supervisor_.all_.reset();
    // Each machine's report stands there already.
    Json short_report = report;
    short_report.erase("machines");
    supervisor_.history_.append(short_report);
    supervisor_.parts_.events.append("exchanged_all", "", {{"report", short_report}});
    if (text_member(report, "outcome") == "done" && !gave_up_.has_value()) {
        supervisor_.parts_.operations.succeed(operation_, report);
        return;
    }
    const ErrorCode code = summary_.cancelled ? ErrorCode::cancelled : ErrorCode::conflict;
    const std::string why = gave_up_.has_value() ? gave_up_->to_string() + "; " : std::string();
    supervisor_.parts_.operations.fail(
        operation_,
        Error(code, (summary_.cancelled ? "cancelled: " : "") + why + text_of(machines_)),
        report);
}

} // namespace godwit::control
