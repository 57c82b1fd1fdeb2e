#include "exchange/partition/estate.h"

namespace godwit::exchange::partition {

std::string_view name_of(OldStage stage) noexcept {
    switch (stage) {
    case OldStage::serving:
        return "serving";
    case OldStage::draining:
        return "draining";
    case OldStage::written:
        return "written";
    case OldStage::sealed:
        return "sealed";
    case OldStage::ended:
        return "ended";
    }
    return "unknown";
}

std::string_view name_of(NewStage stage) noexcept {
    switch (stage) {
    case NewStage::waiting:
        return "waiting";
    case NewStage::armed:
        return "armed";
    case NewStage::expired:
        return "expired";
    case NewStage::fencing:
        return "fencing";
    case NewStage::claiming:
        return "claiming";
    case NewStage::scrubbing:
        return "scrubbing";
    case NewStage::taking_cpu:
        return "taking-cpu";
    case NewStage::done:
        return "done";
    }
    return "unknown";
}

namespace {

/// The stage after `event`, or nothing.
std::optional<OldStage> transition(OldStage stage, OldEvent event) {
    switch (event) {
    case OldEvent::drain:
        return stage == OldStage::serving ? std::optional(OldStage::draining) : std::nullopt;
    case OldEvent::drained:
        return stage == OldStage::draining ? std::optional(OldStage::written) : std::nullopt;
    case OldEvent::seal:
        return stage == OldStage::written ? std::optional(OldStage::sealed) : std::nullopt;
    case OldEvent::refused:
        // The seal is broken again: nothing was claimed, the one who could have refused to.
        return stage == OldStage::sealed ? std::optional(OldStage::draining) : std::nullopt;
    case OldEvent::abort:
        return stage == OldStage::draining || stage == OldStage::written
                   ? std::optional(OldStage::serving)
                   : std::nullopt;
    case OldEvent::exit:
        return stage == OldStage::sealed ? std::optional(OldStage::ended) : std::nullopt;
    }
    return std::nullopt;
}

} // namespace

Result<OldStage> next(OldStage stage, OldEvent event) {
    const std::optional<OldStage> reached = transition(stage, event);
    if (!reached.has_value()) {
        return Error(ErrorCode::conflict,
                     "the instance is " + std::string(name_of(stage)) +
                         ": that is not possible now");
    }
    return *reached;
}

std::string_view reason_against(const Estate& estate, sys::Moment now, const EstateLimits& limits) {
    if (estate.written_at > now) {
        return "it was written in the future: the clocks differ";
    }
    if (estate.deadline < estate.written_at + limits.notice_min) {
        return "its deadline had passed when it was written";
    }
    if (estate.deadline > estate.written_at + limits.notice_max) {
        return "its deadline is too far away";
    }
    return {};
}

namespace {

NewStep go_on(NewState state, NewStage stage, NewAction action) {
    state.stage = stage;
    return {.state = std::move(state), .action = action, .wake_at = {}, .reason = {}};
}

NewStep wait(NewState state, std::optional<sys::Moment> wake_at) {
    return {.state = std::move(state), .action = NewAction::none, .wake_at = wake_at, .reason = {}};
}

NewStep from_armed(NewState state, const Evidence& evidence, const EstateLimits& limits) {
    const sys::Moment deadline = state.estate->deadline;
    if (evidence.now < deadline) {
        return wait(std::move(state), deadline); // An early end changes nothing: expired AND ended.
    }
    if (evidence.old_instance == Liveness::terminated) {
        return go_on(std::move(state), NewStage::claiming, NewAction::claim);
    }
    state.stage = NewStage::expired;
    return wait(std::move(state), deadline + limits.grace);
}

NewStep from_waiting(NewState state, const Evidence& evidence, const EstateLimits& limits) {
    if (evidence.estate.has_value() && evidence.estate->generation != state.refused) {
        const std::string_view reason = evidence.pointers_good
                                            ? reason_against(*evidence.estate, evidence.now, limits)
                                            : "it names memory that is not the old instance's";
        if (reason.empty()) {
            state.estate = evidence.estate;
            state.stage = NewStage::armed;
            return from_armed(std::move(state), evidence, limits);
        }
        state.refused = evidence.estate->generation;
        NewStep step = go_on(std::move(state), NewStage::waiting, NewAction::refuse_estate);
        step.reason = reason;
        return step;
    }
    if (evidence.old_instance == Liveness::terminated) {
        // It ended without a good will: what the partition map says is its own is free to take.
        return go_on(std::move(state), NewStage::claiming, NewAction::claim);
    }
    return wait(std::move(state), {});
}

NewStep from_expired(NewState state, const Evidence& evidence, const EstateLimits& limits) {
    if (evidence.old_instance == Liveness::terminated) {
        return go_on(std::move(state), NewStage::claiming, NewAction::claim);
    }
    const sys::Moment patience_ends = state.estate->deadline + limits.grace;
    if (evidence.old_instance == Liveness::alive && evidence.now < patience_ends) {
        return wait(std::move(state), patience_ends);
    }
    state.fenced_at = evidence.now;
    NewStep step = go_on(std::move(state), NewStage::fencing, NewAction::fence);
    step.wake_at = evidence.now + limits.fence_again;
    return step;
}

NewStep from_fencing(NewState state, const Evidence& evidence, const EstateLimits& limits) {
    if (evidence.old_instance == Liveness::terminated) {
        return go_on(std::move(state), NewStage::claiming, NewAction::claim);
    }
    if (evidence.now < state.fenced_at + limits.fence_again) {
        const sys::Moment again = state.fenced_at + limits.fence_again;
        return wait(std::move(state), again);
    }
    state.fenced_at = evidence.now;
    NewStep step = go_on(std::move(state), NewStage::fencing, NewAction::fence);
    step.wake_at = evidence.now + limits.fence_again;
    return step;
}

} // namespace

NewStep next(const NewState& state, const Evidence& evidence, const EstateLimits& limits) {
    switch (state.stage) {
    case NewStage::waiting:
        return from_waiting(state, evidence, limits);
    case NewStage::armed:
        return from_armed(state, evidence, limits);
    case NewStage::expired:
        return from_expired(state, evidence, limits);
    case NewStage::fencing:
        return from_fencing(state, evidence, limits);
    case NewStage::claiming:
        return evidence.finished ? go_on(state, NewStage::scrubbing, NewAction::scrub)
                                 : go_on(state, NewStage::claiming, NewAction::claim);
    case NewStage::scrubbing:
        return evidence.finished ? go_on(state, NewStage::taking_cpu, NewAction::take_cpu)
                                 : go_on(state, NewStage::scrubbing, NewAction::scrub);
    case NewStage::taking_cpu:
        return evidence.finished ? go_on(state, NewStage::done, NewAction::none)
                                 : go_on(state, NewStage::taking_cpu, NewAction::take_cpu);
    case NewStage::done:
        return wait(state, {});
    }
    return wait(state, {});
}

} // namespace godwit::exchange::partition
