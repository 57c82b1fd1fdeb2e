/// An exchange of all machines between two partitions of the host: what comes before the first
/// machine and after the last one.

#include "base/log.h"
#include "control/exchange_all.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace godwit::control {

namespace {

constexpr std::chrono::milliseconds recover_time_max{15'000};

} // namespace

void ExchangeAll::divide() {
    step_ = Step::dividing;
    supervisor_.parts_.operations.set_phase(operation_, "divide");
    Result<DivisionRequest> request = supervisor_.division_of(request_);
    if (!request.has_value()) {
        gave_up_ = request.error();
        finish();
        return;
    }
    request->operation = operation_;
    request->machines = machines_.size();
    for (const MachineResult& machine : machines_) {
        const MachineEntry* const entry = supervisor_.find(machine.machine);
        programs_before_[machine.machine] = entry == nullptr ? std::string() : entry->program;
        if (entry != nullptr && entry->owner != nullptr) {
            owners_before_[machine.machine] = entry->owner->instance();
        }
    }
    const std::weak_ptr<ExchangeAll> weak = weak_from_this();
    division_ =
        std::make_shared<HostDivision>(supervisor_, std::move(*request), [weak](const Error& why) {
            if (const auto self = weak.lock()) {
                self->gave_up_ = why;
                self->stopping_ = true;
                self->pump_later();
            }
        });
    division_->open(Reply<void>([weak](const Status& opened) {
        if (const auto self = weak.lock()) {
            self->divided(opened);
        }
    }));
}

void ExchangeAll::divided(const Status& opened) {
    if (opened.has_value() && !stopping_) {
        begin_machines();
        return;
    }
    go_back(opened.has_value() ? Error(ErrorCode::cancelled, "cancelled before the first machine")
                               : opened.error());
}

/// The new instance has all machines: it inherits the rest. Or it has not: everything goes back.
void ExchangeAll::leave_or_return() {
    if (stopping_ || count(MachineOutcome::done) != machines_.size()) {
        go_back(gave_up_.value_or(
            summary_.cancelled ? Error(ErrorCode::cancelled, "cancelled")
                               : Error(ErrorCode::conflict, "a machine could not be moved")));
        return;
    }
    step_ = Step::bequeathing;
    supervisor_.parts_.operations.set_phase(operation_, "bequeath");
    const std::weak_ptr<ExchangeAll> weak = weak_from_this();
    division_->bequeath(make_report(), Reply<void>([weak](const Status& failed) {
                            if (const auto self = weak.lock()) {
                                self->go_back(failed.has_value()
                                                  ? Error(ErrorCode::internal, "not bequeathed")
                                                  : failed.error());
                            }
                        }));
}

/// Requirement MP-8: the new instance ends, then the machines it had go back into VMMs of the old
/// build, one by one; they run all the time.
void ExchangeAll::go_back(const Error& why) {
    step_ = Step::returning;
    stopping_ = true;
    gave_up_ = why;
    log::warn("partition_given_up", {{"reason", why.to_string()}});
    supervisor_.parts_.operations.set_phase(operation_, "going back");
    const std::weak_ptr<ExchangeAll> weak = weak_from_this();
    division_->abort(Reply<void>([weak](const Status& aborted) {
        const auto self = weak.lock();
        if (self == nullptr) {
            return;
        }
        if (!aborted.has_value()) {
            log::error("partition_not_taken_back", {{"reason", aborted.error().to_string()}});
        }
        self->supervisor_.parts_.loop.post([weak] {
            if (const auto again = weak.lock()) {
                again->return_next();
            }
        });
    }));
}

void ExchangeAll::return_next() {
    const auto next = std::ranges::find_if(machines_, [](const MachineResult& machine) {
        return (machine.outcome == MachineOutcome::done ||
                machine.outcome == MachineOutcome::failed_after_commit) &&
               machine.phase != "stayed";
    });
    if (next == machines_.end()) {
        finish();
        return;
    }
    bring_back(*next);
}

void ExchangeAll::bring_back(MachineResult& machine) {
    returning_ = machine.machine;
    machine.phase = "going back";
    supervisor_.parts_.operations.set_progress(operation_, progress_of(machines_));
    if (machine.outcome == MachineOutcome::failed_after_commit && !went_over(machine.machine)) {
        const Result<std::uint64_t> recovery = supervisor_.recover(machine.machine);
        if (!recovery.has_value()) {
            returned(machine, false, recovery.error().to_string());
            return;
        }
        const std::weak_ptr<ExchangeAll> weak = weak_from_this();
        supervisor_.parts_.operations.wait(
            *recovery,
            Operations::until_end,
            recover_time_max,
            Reply<std::string>([weak, name = machine.machine](const Result<std::string>& text) {
                const auto self = weak.lock();
                if (self == nullptr) {
                    return;
                }
                const MachineEntry* const entry = self->supervisor_.find(name);
                const auto found =
                    std::ranges::find(self->machines_, name, &MachineResult::machine);
                if (self->went_over(name)) {
                    self->exchange_back(*found); // The new VMM went on by itself.
                    return;
                }
                self->returned(*found,
                               entry != nullptr && entry->state() == "running",
                               text.has_value() ? *text : text.error().to_string());
            }));
        return;
    }
    exchange_back(machine);
}

bool ExchangeAll::went_over(const std::string& machine) const {
    const MachineEntry* const entry = supervisor_.find(machine);
    const auto before = owners_before_.find(machine);
    if (entry == nullptr || entry->record == nullptr || before == owners_before_.end()) {
        return false;
    }
    const handover::Ownership now = entry->record->read();
    return now.tenure == handover::Tenure::running && now.owner != before->second;
}

void ExchangeAll::exchange_back(MachineResult& machine) {
    Supervisor::ExchangeRequest back = request_.exchange;
    back.mode = ExchangeMode::hot_restart;
    back.program = programs_before_[machine.machine];
    const Result<std::uint64_t> begun = supervisor_.exchange(machine.machine, std::move(back));
    if (!begun.has_value()) {
        returned(machine, false, begun.error().to_string());
    }
}

void ExchangeAll::returned(MachineResult& machine, bool back, const std::string& how) {
    returning_.clear();
    if (back) {
        machine.outcome = MachineOutcome::rolled_back;
        machine.build_ids[1] = machine.build_ids[0];
        machine.reason = "moved back: " + gave_up_->to_string();
    } else {
        machine.reason = "it belongs to the old godwitd again, but did not go back into a VMM of "
                         "the old build: " +
                         how;
    }
    machine.phase = back ? "going back" : "stayed";
    tell(machine);
    const std::weak_ptr<ExchangeAll> weak = weak_from_this();
    supervisor_.parts_.loop.post([weak] {
        if (const auto self = weak.lock()) {
            self->return_next();
        }
    });
}

} // namespace godwit::control
