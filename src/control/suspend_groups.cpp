/// The machines' way through the pause, some of them at a time.
#include "base/fault_point.h"
#include "control/suspend_member.h"
#include "control/suspend_run.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <thread>

namespace godwit::control {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds request_time_max{5'000};
constexpr milliseconds leave_time_max{5'000};
/// For a group to run in its new VMMs before the next one is paused anyway.
constexpr milliseconds run_time_max{5'000};

} // namespace

/// Looks whether the present step is over: for every machine, or for those of the present group.
void SuspendRun::look() {
    const auto all = [this](auto condition) {
        return std::ranges::all_of(members_, [&](const auto& m) { return condition(*m); });
    };
    const auto group = [this](auto condition) {
        return std::ranges::all_of(group_, [&](const Member* m) { return condition(*m); });
    };
    const bool any_failed =
        std::ranges::any_of(members_, [](const auto& m) { return m->stage == Stage::failed; });
    switch (step_) {
    case Step::prepare:
        if (all([](const Member& m) { return m.stage >= Stage::ready; })) {
            if (any_failed || !host_blockers_.empty()) {
                give_up(Error(ErrorCode::conflict, "the hypervisor cannot be exchanged"));
            } else {
                next_group();
            }
        }
        break;
    case Step::hold:
        if (any_failed && !any_committed_) {
            give_up(Error(ErrorCode::conflict, "a machine could not be suspended"));
        } else if (group([](const Member& m) { return m.stage >= Stage::held; })) {
            commit();
        }
        break;
    case Step::commit:
        if (group([](const Member& m) { return m.stage >= Stage::committed; })) {
            retire();
        }
        break;
    case Step::retire:
        if (group([](const Member& m) { return !m.is_committed() || !m.is_awaited(); })) {
            release();
        }
        break;
    case Step::release:
        if (group([](const Member& m) { return m.stage >= Stage::over; })) {
            next_group();
        }
        break;
    case Step::giving_up:
        if (all([](const Member& m) { return !m.asked && !m.reclaiming; })) {
            finish_given_up();
        }
        break;
    case Step::plan:
    case Step::over:
        break;
    }
}

/// While a machine stands still the threads of two processes work for it.
std::size_t SuspendRun::group_size() const {
    return request_.concurrency != 0 ? request_.concurrency
                                     : std::max(std::thread::hardware_concurrency() / 2, 1U);
}

/// Those that are ready and have not been paused; none: everything is over.
void SuspendRun::next_group() {
    group_.clear();
    if (!any_committed_ &&
        std::ranges::any_of(members_, [](const auto& m) { return m->stage == Stage::failed; })) {
        give_up(Error(ErrorCode::conflict, "no machine was committed"));
        return;
    }
    for (const auto& member : members_) {
        if (member->stage == Stage::ready && group_.size() < group_size()) {
            group_.push_back(member.get());
        }
    }
    if (!group_.empty()) {
        hold();
    } else if (std::ranges::none_of(members_, [](const auto& m) { return m->is_awaited(); })) {
        note_and_replace();
    } else if (!last_wait_) {
        last_wait_ = true; // Old VMMs that failed may take their machines back still.
        arm(leave_time_max, [this] { note_and_replace(); });
    }
}

void SuspendRun::hold() {
    enter(Step::hold, "pause", 4);
    arm(request_.deadline, [this] {
        const Error late(ErrorCode::timeout,
                         "not every machine was suspended within " +
                             std::to_string(request_.deadline.count()) + " ms");
        if (!any_committed_) {
            give_up(late);
            return;
        }
        for (Member* const member : std::vector(group_)) {
            if (member->stage == Stage::holding) {
                member_failed(*member, late); // The others go on.
            }
        }
    });
    for (Member* const member : group_) {
        member->stage = Stage::holding;
        member->keeper->call(
            "hold",
            Json::object(),
            request_time_max,
            Reply<Json>([weak = weak_from_this(), raw = member](const Result<Json>& answer) {
                if (const auto self = weak.lock(); self != nullptr && !answer.has_value()) {
                    self->member_failed(*raw, answer.error());
                }
            }));
    }
}

void SuspendRun::commit() {
    enter(Step::commit, "commit", 5);
    timer_.reset();
    any_committed_ = true;
    for (Member* const member : group_) {
        if (member->stage == Stage::failed) {
            continue;
        }
        member->keeper->call(
            "commit",
            Json::object(),
            request_time_max,
            Reply<Json>([weak = weak_from_this(), raw = member](const Result<Json>& answer) {
                if (const auto self = weak.lock()) {
                    self->committed(*raw, answer);
                }
            }));
    }
}

/// Whatever was answered, the record knows. A machine that was not committed goes on where it was.
void SuspendRun::committed(Member& member, const Result<Json>& answer) {
    const handover::Ownership now = member.record->read();
    const bool ours = now.owner == member.source->instance();
    if (answer.has_value() || (!ours && now.tenure == handover::Tenure::running)) {
        member.stage = Stage::committed;
    } else {
        member.stage = Stage::failed;
        member.trouble = answer.error().to_string();
        member.keeper->kill("its commit failed");
        if (!member.asked) {
            reclaim(member);
        }
    }
    look();
}

/// An old VMM's report is its last act before it ends; nobody waits for what the kernel then tears
/// down. Its keeper goes on when its connection is closed.
void SuspendRun::retire() {
    enter(Step::retire, "retire", 6);
    arm(leave_time_max, [this] {
        for (Member* const member : group_) {
            if (member->stage == Stage::committed && !member->source_gone && member->asked) {
                // The record says that it must not run the guest any more.
                member->source->kill("its machine was suspended and it did not say so");
            }
        }
    });
    look();
}

/// The keepers go on and give their machines to the new VMMs; those are left alone meanwhile.
void SuspendRun::release() {
    any_committed_ = std::ranges::any_of(members_, [](const auto& m) { return m->is_committed(); });
    step_ = Step::release;
    arm(run_time_max, [this] { next_group(); });
    for (Member* const member : group_) {
        if (member->stage == Stage::committed) {
            member->stage = Stage::released;
            member->lifeline_near.reset();
        }
    }
    look();
}

} // namespace godwit::control
