/// The keeper's side towards the new VMM: the source's part of an exchange, played from the parcel.

#include "base/log.h"
#include "keeper/keeper.h"

#include <nlohmann/json.hpp>

namespace godwit::keeper {

namespace {

using std::chrono::milliseconds;

/// From TakeOver until the new VMM must have said that it runs the guest.
constexpr milliseconds running_time_max{10'000};
constexpr milliseconds settle_time_max{5'000};

void add_phase(handover::Report& report, handover::Phase phase, sys::Nanoseconds time) {
    report.phase_us[static_cast<std::size_t>(phase)] +=
        std::chrono::duration_cast<std::chrono::microseconds>(time).count();
}

} // namespace

void Keeper::from_successor(Result<exchange::WireMessage> message) {
    Status done = ok();
    if (!message.has_value()) {
        done = std::move(message.error());
    } else if (auto* hello = std::get_if<exchange::Hello>(&*message);
               hello != nullptr && (step_ == Step::greeting || step_ == Step::kept)) {
        done = greeted(std::move(*hello));
    } else if (std::holds_alternative<exchange::Prepared>(*message) && !successor_stands_) {
        successor_stands_ = true;
        prepared_somewhere();
        try_resume();
    } else if (const auto* running = std::get_if<exchange::Running>(&*message);
               running != nullptr && step_ == Step::resuming) {
        done = runs_there(*running);
    } else if (const auto* answer = std::get_if<exchange::SettleAnswer>(&*message);
               answer != nullptr && step_ == Step::settling) {
        finish(*answer);
    } else {
        done = Error(ErrorCode::corrupt, "it sent a message out of order");
    }
    if (!done.has_value()) {
        successor_failed(Error(done.error()).with_context("the new VMM"));
    }
}

Status Keeper::greeted(exchange::Hello hello) {
    hello_ = std::move(hello);
    if (hello_.instance == 0 || hello_.instance == options_.instance.value) {
        return Error(ErrorCode::corrupt, "it has no instance id of its own");
    }
    report_.destination_build_id = hello_.build_id;
    if (step_ == Step::kept) { // It comes to a machine that is here already.
        return parcel_->send_offer(
            *successor_.socket, options_.instance, parcel_->record().read().epoch);
    }
    pass(2);
    exchange::Hello ours = hello_; // Its abilities count, so the old VMM checks against them.
    // But not this one: nothing is mirrored in a machine that is going to be kept first.
    ours.takes_previews = false;
    ours.instance = options_.instance.value;
    GODWIT_TRY(exchange::send(*source_.socket, ours));
    step_ = Step::offering;
    return ok();
}

/// The machine goes on in the new VMM as soon as that stands and the old side has ended.
void Keeper::try_resume() {
    if (step_ != Step::kept || !resume_wanted_ || !successor_stands_) {
        return;
    }
    pass(9);
    timer_.reset();
    resumed_at_ = clock_.now();
    const Status sent = parcel_->send_take_over(*successor_.socket);
    if (!sent.has_value()) {
        successor_failed(sent.error());
        return;
    }
    step_ = Step::resuming;
    auto timer = loop_->schedule(running_time_max, {}, [this] {
        successor_failed(Error(ErrorCode::timeout, "the new VMM did not run the guest in time"));
    });
    if (timer.has_value()) {
        timer_ = std::move(*timer);
    }
}

/// What it says counts only if the record says it too.
Status Keeper::runs_there(const exchange::Running& running) {
    const handover::Ownership now = parcel_->record().read();
    if (now.owner.value != hello_.instance || now.epoch != running.epoch ||
        now.tenure != handover::Tenure::running) {
        return Error(ErrorCode::corrupt, "it says that it runs the guest and does not own it");
    }
    pass(10);
    report_.after = now;
    report_.outcome = handover::Outcome::done;
    const sys::Moment claimed{sys::Nanoseconds(running.claimed_at_ns)};
    const sys::Moment entered{sys::Nanoseconds(running.first_entry_ns)};
    add_phase(report_, handover::Phase::pause, resumed_at_ - kept_at_);
    add_phase(report_, handover::Phase::commit, claimed - resumed_at_);
    if (running.first_entry_ns != 0) {
        add_phase(report_, handover::Phase::resume, entered - claimed);
        report_.blackout_us = sys::microseconds_between(kept_at_, entered);
    }
    report_.state_bytes = parcel_->state_bytes();
    report_.resources = {
        {.resource = "memory, disks and taps", .carrier = "pointer", .bytes_copied = 0},
        {.resource = "consoles", .carrier = "descriptor", .bytes_copied = 0},
        {.resource = "state", .carrier = "record", .bytes_copied = parcel_->state_bytes()}};
    step_ = Step::settling;
    GODWIT_TRY(exchange::send(*successor_.socket, exchange::Settle{}));
    auto timer = loop_->schedule(settle_time_max, {}, [this] { finish({}); });
    if (timer.has_value()) {
        timer_ = std::move(*timer);
    }
    return ok();
}

void Keeper::successor_failed(const Error& why) {
    timer_.reset();
    successor_stands_ = false;
    if (step_ < Step::kept) {
        give_back(why);
        return;
    }
    if (successor_.alive()) {
        discard(exchange::send(*successor_.socket, exchange::Abort{.reason = why.to_string()}),
                "it may be gone");
        successor_.close();
    }
    if (step_ == Step::over) {
        return;
    }
    if (step_ == Step::settling) {
        finish({}); // It owns the machine; its frames stay unknown.
        return;
    }
    // Take back what was offered, so that nothing it still does counts.
    handover::OwnerRecord& record = parcel_->record();
    for (handover::Ownership now = record.read();; now = record.read()) {
        const bool others =
            now.owner != options_.instance &&
            (now.owner.value != hello_.instance || now.tenure == handover::Tenure::running);
        if (others) {
            // It runs the guest, or has run it: what is kept here is stale.
            report_.after = now;
            report_.fail(handover::Outcome::failed_after_commit, "resumed", "destination", why);
            step_ = Step::settling;
            finish({});
            return;
        }
        if (record.transfer(now, options_.instance).has_value()) {
            break;
        }
    }
    log::error("machine_stays_frozen",
               {{"machine", options_.machine}, {"reason", why.to_string()}});
    step_ = Step::kept;
    resume_wanted_ = false;
    report_.after = record.read();
    report_.fail(handover::Outcome::rolled_back, "resumed", "destination", why);
    write_report();
    answer_exchange();
    announce();
}

void Keeper::finish(const exchange::SettleAnswer& answer) {
    if (step_ != Step::settling) {
        return;
    }
    pass(11);
    timer_.reset();
    report_.frames_sampled = answer.frames_sampled;
    report_.frames_identical = answer.frames_identical;
    write_report();
    answer_exchange();
    if (guard_.alive()) {
        discard(exchange::send(*guard_.socket, exchange::Abort{.reason = "the machine is taken"}),
                "it may be gone");
    }
    end(report_.outcome == handover::Outcome::done ? 0 : 1);
}

/// Read by the godwitd that comes after the one that began this.
void Keeper::write_report() const {
    const Status written =
        sys::write_file_atomically(options_.report_path(), handover::to_json(report_));
    if (!written.has_value()) {
        log::warn("keeper_report_lost", {{"reason", written.error().to_string()}});
    }
}

void Keeper::answer_exchange() {
    if (asked_.has_value()) {
        asked_->result(nlohmann::json::parse(handover::to_json(report_), nullptr, false));
        asked_.reset();
    }
}

} // namespace godwit::keeper
