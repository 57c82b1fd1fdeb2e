#include "control/recover_run.h"

#include "base/log.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace godwit::control {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds answer_time_max{2'000};
/// How long a successor that has claimed the machine may take to run it after all.
constexpr milliseconds forward_time_max{3'000};
constexpr milliseconds reclaim_time_max{10'000};

std::string epoch_text(const handover::Ownership& now) {
    return "instance " + to_string(now.owner) + " in epoch " + std::to_string(now.epoch);
}

bool says(const VmmInstance& vmm, std::string_view state) {
    return vmm.alive() && vmm.trouble().empty() && vmm.status().has_value() &&
           vmm.status()->state == state;
}

/// The process that keeps the guest at rest since its exchange, or null. One from an exchange
/// before may be there as well, and keeps a stale one.
std::shared_ptr<VmmInstance> frozen_in(const MachineEntry& entry) {
    auto all = entry.others;
    if (entry.owner != nullptr) {
        all.insert(all.begin(), entry.owner);
    }
    const auto found = std::ranges::find_if(
        all, [](const auto& vmm) { return says(*vmm, "frozen") && vmm->status()->reclaimable; });
    return found == all.end() ? nullptr : *found;
}

} // namespace

void RecoverRun::start(std::uint64_t operation) {
    operation_ = operation;
    supervisor_.parts_.operations.set_phase(operation_, "asking");
    const MachineEntry& entry = *supervisor_.find(machine_);
    record_ = entry.record;
    before_ = record_->read();
    auto all = entry.others;
    if (entry.owner != nullptr) {
        all.push_back(entry.owner);
    }
    unanswered_ = all.size();
    wait(answer_time_max);
    const std::weak_ptr<RecoverRun> weak = weak_from_this();
    for (const auto& vmm : all) {
        vmm->refresh_status(Reply<void>([weak](const Status&) {
            const auto self = weak.lock();
            if (self != nullptr && --self->unanswered_ == 0 && self->step_ == Step::asking) {
                self->judge();
            }
        }));
    }
}

void RecoverRun::wait(milliseconds limit) {
    const std::weak_ptr<RecoverRun> weak = weak_from_this();
    auto timer = supervisor_.parts_.loop.schedule(limit, {}, [weak] {
        if (const auto self = weak.lock(); self != nullptr && self->step_ != Step::reclaiming) {
            self->waited_ = self->waited_ || self->step_ == Step::waiting;
            self->judge();
        }
    });
    if (timer.has_value()) {
        timer_ = std::move(*timer);
    } else {
        log::error("recover_timer_missing", {{"reason", timer.error().to_string()}});
    }
}

void RecoverRun::changed() {
    if (step_ == Step::waiting) {
        judge();
    }
}

void RecoverRun::judge() {
    const MachineEntry* const entry = supervisor_.find(machine_);
    if (step_ == Step::over) {
        return;
    }
    if (entry == nullptr) {
        finish(End::bad, "lost", "nothing");
        return;
    }
    const handover::Ownership now = record_->read();
    if (now.tenure == handover::Tenure::running) {
        judge_running(*entry, now);
    } else {
        judge_claimed(*entry, now);
    }
}

/// Its owner may have run the guest: there is no other copy, whatever else is found.
void RecoverRun::judge_running(const MachineEntry& entry, const handover::Ownership& now) {
    const std::shared_ptr<VmmInstance> holder = entry.living(now.owner);
    if (holder != nullptr && before_.tenure == handover::Tenure::claimed) {
        finish(End::good, "finished_forward", epoch_text(now) + " went on by itself and runs it");
        return;
    }
    if (holder == nullptr) {
        found_ = epoch_text(now) + " owned the machine, may have run the guest and is gone";
        finish(End::bad,
               "lost",
               "nothing: a frozen copy of before is stale and is not run; "
               "'godwit stop --force' takes it away");
    } else if (says(*holder, "running") || says(*holder, "paused")) {
        found_ = epoch_text(now) + " owns the machine, which is " + holder->status()->state;
        finish(End::good, "not_needed", "nothing");
    } else {
        found_ = epoch_text(now) + " owns the machine, may have run the guest and does not answer" +
                 (holder->trouble().empty() ? "" : ": " + holder->trouble());
        finish(End::bad,
               "unchanged",
               "nothing: there is no other copy; wait for it, or end it with "
               "'godwit stop --force'");
    }
}

/// Nobody has run the guest since the source stopped it.
void RecoverRun::judge_claimed(const MachineEntry& entry, const handover::Ownership& now) {
    const std::shared_ptr<VmmInstance> holder = entry.living(now.owner);
    kept_ = frozen_in(entry);
    found_ =
        epoch_text(now) + " has claimed the machine, has not run the guest and " +
        (holder == nullptr ? "is gone" : "hangs") +
        (kept_ == nullptr ? "" : "; instance " + kept_->id() + " keeps it frozen and complete");
    if (holder != nullptr && !waited_) {
        if (step_ != Step::waiting) {
            step_ = Step::waiting;
            supervisor_.parts_.operations.set_phase(operation_, "waiting for the successor");
            wait(forward_time_max);
        }
        return;
    }
    if (kept_ == nullptr) {
        finish(End::bad,
               "unchanged",
               "nothing: the process that kept the guest frozen is gone or does not answer");
        return;
    }
    step_ = Step::reclaiming;
    timer_.reset();
    supervisor_.parts_.operations.set_phase(operation_, "reclaiming");
    const std::weak_ptr<RecoverRun> weak = weak_from_this();
    kept_->call(
        "reclaim", Json::object(), reclaim_time_max, Reply<Json>([weak](Result<Json> answer) {
            if (const auto self = weak.lock()) {
                self->reclaimed(answer);
            }
        }));
}

void RecoverRun::reclaimed(const Result<Json>& answer) {
    MachineEntry* const entry = supervisor_.find(machine_);
    if (entry == nullptr) {
        finish(End::bad, "lost", "the process that kept the guest was told to go on and died");
        return;
    }
    const handover::Ownership now = record_->read();
    if (now.owner == before_.owner && now.tenure == handover::Tenure::running) {
        judge_running(*entry, now); // The successor was quicker.
        return;
    }
    if (!answer.has_value()) {
        finish(End::bad,
               "unchanged",
               "instance " + kept_->id() +
                   " was told to go on and could not: " + answer.error().to_string());
        return;
    }
    // The record is in a new epoch: the successor cannot run the guest any more.
    if (const auto holder = entry->living(before_.owner); holder != nullptr) {
        holder->kill("its claim was reversed by a recovery");
    }
    if (entry->owner != kept_) {
        supervisor_.promote(*entry, *kept_);
    }
    kept_->refresh_status(Reply<void>());
    finish(End::good,
           "rolled_back",
           "instance " + kept_->id() + " took it back in epoch " + std::to_string(now.epoch) +
               " and goes on where it stopped");
}

void RecoverRun::finish(End end, std::string_view outcome, const std::string& done) {
    step_ = Step::over;
    timer_.reset();
    const std::shared_ptr<RecoverRun> keep = shared_from_this();
    supervisor_.recoveries_.erase(machine_);
    MachineEntry* const entry = supervisor_.find(machine_);
    const handover::Ownership after = record_->read();
    const Json report{{"operation", "recover"},
                      {"machine", machine_},
                      {"outcome", outcome},
                      {"found", found_},
                      {"done", done},
                      {"owners", {to_string(before_.owner), to_string(after.owner)}},
                      {"epochs", {before_.epoch, after.epoch}}};
    supervisor_.history_.append(report);
    supervisor_.parts_.events.append("recovered", machine_, {{"report", report}});
    if (entry != nullptr) {
        supervisor_.announce_state(*entry);
    }
    if (end == End::good) {
        supervisor_.parts_.operations.succeed(operation_, report);
    } else {
        supervisor_.parts_.operations.fail(
            operation_, Error(ErrorCode::conflict, "found: " + found_ + "; done: " + done), report);
    }
}

} // namespace godwit::control
