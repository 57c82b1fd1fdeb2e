// The way back: a move that is cancelled or fails leaves a complete source (HS-9).
#include "base/log.h"
#include "block/move/mover.h"

#include <utility>

namespace godwit::block {

namespace {
/// Times that bringing back is tried again after a failure, and how long after.
constexpr std::uint32_t back_failures_max = 5;
constexpr std::chrono::milliseconds retry_delay(100);
} // namespace

Status Mover::cancel(Error reason) {
    switch (phase_) {
    case MovePhase::committing:
    case MovePhase::finished:
        return Error(ErrorCode::conflict, "the disk has been moved already");
    case MovePhase::returning:
    case MovePhase::closing:
        return ok();
    case MovePhase::stranded:
        back_failures_ = 0;
        phase_ = MovePhase::returning;
        retry_due_ = true;
        alarm_->set(clock_.now());
        return ok();
    default:
        give_up(std::move(reason));
        return ok();
    }
}

void Mover::destination_failed(const Error& reason) noexcept {
    give_up(Error(reason).with_context("the destination failed"));
}

void Mover::copy_failed(Copier::FailedAt where, const Error& reason) {
    if (phase_ == MovePhase::returning && going_back_) {
        back_failed(reason);
        return;
    }
    give_up(Error(reason).with_context(where == Copier::FailedAt::reading
                                           ? "the source could not be read"
                                           : "the destination could not be written"));
}

void Mover::give_up(Error reason) {
    if (report_.reason.has_value() || phase_ == MovePhase::finished) {
        return;
    }
    log::warn("disk_move_given_up",
              {{"disk", path_.source().description()},
               {"phase", name_of(phase_)},
               {"reason", reason.to_string()}});
    report_.reason = std::move(reason);
    return_started_ = clock_.now();
    copier_->stop();
    phase_ = MovePhase::returning;
    if (!tracked()) {
        state_.routing = Routing::returning;
    }
    path_.release();
    advance();
}

void Mover::step_returning() {
    if (!going_back_) {
        if (!copier_->idle() || flushing_) {
            return;
        }
        if (tracked()) {
            finish(MoveOutcome::cancelled);
            return;
        }
        going_back_ = true;
        begin_pass(Pass::back);
    }
    if (retry_due_ || !pass_is_over()) {
        return;
    }
    if (!state_.ahead.empty()) {
        begin_pass(Pass::back); // Came while the pass went by.
        return;
    }
    phase_ = MovePhase::closing;
    path_.hold();
    again_ = true;
}

/// Nothing is in flight: the source has everything, or changes that ended late go back as well.
void Mover::close_return() {
    if (flushing_) {
        return;
    }
    if (!state_.ahead.empty()) {
        phase_ = MovePhase::returning;
        path_.release();
        begin_pass(Pass::back);
    } else if (brought_back_) {
        flush(path_.source(), FlushFor::close);
    } else {
        finish(MoveOutcome::cancelled);
    }
}

void Mover::back_failed(const Error& reason) {
    log::warn("disk_move_back_failed",
              {{"disk", path_.source().description()}, {"reason", reason.to_string()}});
    copier_->stop();
    phase_ = MovePhase::returning;
    path_.release();
    if (++back_failures_ > back_failures_max) {
        phase_ = MovePhase::stranded;
        report_.outcome = MoveOutcome::stranded;
        telling_ = true;
        alarm_->set(clock_.now());
        return;
    }
    retry_due_ = true;
    alarm_->set(clock_.now() + retry_delay);
}

void Mover::finish(MoveOutcome outcome) {
    phase_ = MovePhase::finished;
    report_.outcome = outcome;
    report_.ended_as = state_.scheme;
    report_.counters = state_.counters;
    report_.duration = clock_.now() - started_;
    report_.tracking_bytes = tracking_bytes();
    if (outcome == MoveOutcome::cancelled) {
        report_.copy_back = clock_.now() - return_started_;
    }
    if (filter_ != nullptr) {
        report_.histogram = filter_->histogram();
    }
    if (own_filter_.has_value()) {
        path_.set_filter(nullptr);
    }
    retired_ = path_.detach(outcome == MoveOutcome::moved ? GuestPath::Keep::destination
                                                          : GuestPath::Keep::source);
    path_.release();
    telling_ = true;
    alarm_->set(clock_.now());
}

/// The alarm: the first step, another try, or the end to be told.
void Mover::ring() {
    if (std::exchange(telling_, false)) {
        if (report_.outcome == MoveOutcome::stranded) {
            report_.counters = state_.counters;
            report_.duration = clock_.now() - started_;
        }
        if (hooks_.finished) {
            hooks_.finished(report_);
        }
        if (retry_due_) { // A cancel came before this could be told, or has just come.
            alarm_->set(clock_.now());
        }
        return;
    }
    if (retry_due_ && !copier_->idle()) {
        alarm_->set(clock_.now() + retry_delay);
        return;
    }
    if (std::exchange(retry_due_, false)) {
        begin_pass(Pass::back);
    }
    advance();
}

} // namespace godwit::block
