#include "handover/engine.h"

#include "base/fault_point.h"
#include "base/log.h"
#include "sys/time_line.h"

// clang-format off
/// Steps of the source, each with its undo. Numbers stand in fault points ("handover.source.5"), names in
/// reports.
///
///   #  step        phase    undo when a later step fails before the commit
///   1  plan        plan     nothing was touched
///   2  introduce   plan     tell the destination to forget
///   3  prepare     prepare  carriers abort, destination forgets
///   4  sync        sync     as 3
///   5  quiesce     sync     devices work again; what was carried of them is void
///   6  pause       pause    the guest runs again
///   7  carry       pause    as 6
///   8  offer       commit   take the offer back: compare-and-swap on the owner record. Whoever wins this
///                           swap owns the machine: the destination's claim is the commit
///   9  resumed     resume   none by itself; without an answer the machine is frozen, and recoverable as long
///                           as the claim is not confirmed (owner_record.h): that is the POINT OF NO RETURN
///  10  settle      settle   none; a failure is reported, the guest runs at the destination
// clang-format on

namespace godwit::handover {

namespace {

/// The run of one handover: which step it is at and what must be undone.
class SourceRun {
  public:
    SourceRun(HandoverParts parts, Report report)
        : parts_(std::move(parts)), report_(std::move(report)), times_(parts_.clock),
          pause_times_(parts_.clock) {}

    Report run() {
        report_.before = parts_.expected;
        report_.after = parts_.record.read();
        Status before_commit = run_until_offer();
        if (!before_commit.has_value()) {
            roll_back(before_commit.error());
        } else {
            finish_commit();
        }
        times_.finish();
        report_.take_times(times_);
        return std::move(report_);
    }

  private:
    Status run_until_offer() {
        GODWIT_TRY(plan());
        GODWIT_TRY(prepare());
        GODWIT_TRY(sync());
        GODWIT_TRY(pause());
        return offer();
    }

    void enter(Phase phase, std::string_view step_name) {
        if (phase != times_.current() || phase == Phase::plan) {
            times_.enter(phase);
            // Telling wakes other threads: not while the guest stands still for it.
            if (phase != Phase::pause && phase != Phase::commit) {
                tell(phase);
            }
        }
        step(step_name);
    }

    void tell(Phase phase) const {
        if (parts_.progress) {
            parts_.progress(phase);
        }
    }

    void step(std::string_view name) {
        step_ = name;
        ++number_;
        fault_point("handover.source." + std::to_string(number_));
    }

    Status check_cancel() const {
        if (parts_.cancel != nullptr && parts_.cancel->load()) {
            return Error(ErrorCode::cancelled, "cancelled on request");
        }
        return ok();
    }

    Status plan() {
        enter(Phase::plan, "plan");
        if (report_.before.owner != parts_.self) {
            return Error(ErrorCode::conflict,
                         "this process is not the owner of the machine, instance " +
                             to_string(report_.before.owner) + " is");
        }
        if (report_.after != report_.before) {
            return Error(ErrorCode::conflict,
                         "the owner record is in epoch " + std::to_string(report_.after.epoch) +
                             ", and this handover was asked for in epoch " +
                             std::to_string(report_.before.epoch) + ": somebody has given it up");
        }
        report_.blockers = parts_.machine.blockers();
        for (const Carrier* carrier : parts_.carriers) {
            for (std::string& blocker : carrier->blockers()) {
                report_.blockers.push_back(std::move(blocker));
            }
        }
        step("introduce");
        side_ = "destination";
        introduced_ = true;
        GODWIT_TRY(parts_.destination.introduce(report_.blockers, parts_.limits.hello_timeout));
        side_ = "source";
        report_.destination_build_id = parts_.destination.build_id();
        if (!report_.blockers.empty()) {
            std::string text = "the machine cannot be handed over: ";
            for (const std::string& blocker : report_.blockers) {
                text += (&blocker == &report_.blockers.front() ? "" : "; ") + blocker;
            }
            return Error(ErrorCode::conflict, std::move(text));
        }
        return check_cancel();
    }

    Status prepare() {
        enter(Phase::prepare, "prepare");
        for (Carrier* carrier : parts_.carriers) {
            ++prepared_;
            GODWIT_TRY(carrier->prepare().with_context(carrier->resource()));
        }
        side_ = "destination";
        GODWIT_TRY(parts_.destination.prepare(parts_.limits.prepare_timeout));
        side_ = "source";
        return check_cancel();
    }

    Status sync() {
        enter(Phase::sync, "sync");
        for (std::uint32_t round = 1;; ++round) {
            GODWIT_TRY(check_cancel());
            Remaining all;
            for (Carrier* carrier : parts_.carriers) {
                const Remaining one = GODWIT_TRY(carrier->sync().with_context(carrier->resource()));
                all.bytes += one.bytes;
                all.bytes_per_second += one.bytes_per_second;
            }
            const SyncDecision decision = decide(all, round, parts_.limits);
            if (decision == SyncDecision::give_up) {
                return Error(ErrorCode::timeout,
                             "after " + std::to_string(round) + " rounds " +
                                 std::to_string(all.bytes) +
                                 " bytes remain, more than fits the pause budget");
            }
            if (decision == SyncDecision::pause_now) {
                break;
            }
        }
        step("quiesce");
        touched_ = true;
        stands_since_ = parts_.clock.now();
        GODWIT_TRY(parts_.machine.quiesce(parts_.limits.commit_timeout));
        for (Carrier* carrier : parts_.carriers) {
            GODWIT_TRY(carrier->carry_at_rest().with_context(carrier->resource()));
        }
        return ok();
    }

    Status pause() {
        enter(Phase::pause, "pause");
        GODWIT_TRY(parts_.machine.pause(GODWIT_TRY(time_left())));
        pause_times_.mark("stop");
        step("carry");
        for (Carrier* carrier : parts_.carriers) {
            GODWIT_TRY(carrier->carry_paused().with_context(carrier->resource()));
            pause_times_.mark(carrier->resource());
        }
        return ok();
    }

    /// What is left of the guest's standstill; timeout if nothing.
    Result<std::chrono::milliseconds> time_left() const {
        const auto gone = std::chrono::duration_cast<std::chrono::milliseconds>(parts_.clock.now() -
                                                                                stands_since_);
        if (gone >= parts_.limits.commit_timeout) {
            return Error(ErrorCode::timeout,
                         "the limit of " + std::to_string(parts_.limits.commit_timeout.count()) +
                             " ms for the change of owner is over");
        }
        return parts_.limits.commit_timeout - gone;
    }

    Status offer() {
        enter(Phase::commit, "offer");
        GODWIT_TRY(check_cancel());
        [[maybe_unused]] const auto left = GODWIT_TRY(time_left());
        offered_ = true;
        GODWIT_TRY(parts_.destination.offer());
        tell(Phase::pause);
        tell(Phase::commit);
        step("resumed");
        side_ = "destination";
        resumed_ = GODWIT_TRY(
            parts_.destination.await_resumed(time_left().value_or(std::chrono::milliseconds(0))));
        return check_claim();
    }

    /// What the destination says counts only if the record says it too.
    Status check_claim() const {
        const Ownership now = parts_.record.read();
        if (now != resumed_.ownership || now.epoch != report_.before.epoch + 1) {
            return Error(ErrorCode::corrupt,
                         "the destination says that the guest runs there, but the owner record "
                         "names instance " +
                             to_string(now.owner) + " in epoch " + std::to_string(now.epoch));
        }
        return ok();
    }

    /// The guest runs at the destination: what is left is bookkeeping.
    void finish_commit() {
        report_.after = parts_.record.read();
        report_.outcome = Outcome::done;
        enter(Phase::settle, "settle");
        if (resumed_.entered) {
            report_.blackout_us =
                sys::microseconds_between(parts_.machine.stopped_at(), resumed_.first_entry_at);
            list_blackout_parts();
            times_.shift(
                Phase::commit, Phase::resume, resumed_.first_entry_at - resumed_.claimed_at);
        }
        for (Carrier* carrier : parts_.carriers) {
            const Status settled = carrier->settle();
            if (!settled.has_value()) {
                log::warn(
                    "settle_failed",
                    {{"resource", carrier->resource()}, {"reason", settled.error().to_string()}});
            }
            report_.resources.push_back(carrier->carried());
            if (carrier->resource() != "state") {
                report_.guest_bytes_copied += report_.resources.back().bytes_copied;
            }
        }
        const Result<Settled> checks = parts_.destination.settle(parts_.limits.settle_timeout);
        if (checks.has_value()) {
            report_.frames_sampled = checks->frames_sampled;
            report_.frames_identical = checks->frames_identical;
            report_.fetched = checks->fetched;
        } else {
            log::warn("settle_unanswered", {{"reason", checks.error().to_string()}});
        }
    }

    /// From the marks of both sides. The peer's are only shown, so they need not make sense.
    void list_blackout_parts() {
        sys::Moment last = parts_.machine.stopped_at();
        const auto add = [&](std::string name, sys::Moment at) {
            report_.blackout_parts_us.emplace_back(std::move(name),
                                                   sys::microseconds_between(last, at));
            last = at;
        };
        for (const auto& mark : pause_times_.marks()) {
            add(std::string(mark.name), mark.at);
        }
        for (auto& [name, at] : resumed_.marks) {
            add(std::move(name), at);
        }
        add("claim", resumed_.claimed_at);
        add("enter", resumed_.first_entry_at);
    }

    void roll_back(const Error& error) {
        if (offered_ && !take_offer_back(error)) {
            return;
        }
        report_.fail(Outcome::rolled_back, step_, side_, error);
        if (introduced_) {
            parts_.destination.abort(error);
        }
        if (touched_) {
            const Status resumed = parts_.machine.resume();
            if (!resumed.has_value()) {
                log::error("rollback_resume_failed", {{"reason", resumed.error().to_string()}});
                report_.reason +=
                    "; and the guest could not be resumed: " + resumed.error().to_string();
            }
        }
        for (std::size_t i = prepared_; i > 0; --i) {
            parts_.carriers[i - 1]->abort();
        }
    }

    /// After the offer only the owner record tells who may run the guest. True if it is ours again.
    bool take_offer_back(const Error& error) {
        discard(parts_.record.transfer(report_.before, parts_.self), "what counts is read below");
        report_.after = parts_.record.read();
        if (report_.after.owner == parts_.self) {
            return true; // By us, or by the host's daemon for us: no claim can come any more.
        }
        report_.fail(Outcome::failed_after_commit, step_, side_, error);
        report_.reason +=
            "; instance " + to_string(report_.after.owner) +
            (report_.after.tenure == Tenure::claimed ? " has claimed the machine in epoch "
                                                     : " runs the machine since epoch ") +
            std::to_string(report_.after.epoch) + ", so it does not run here again by itself";
        return false;
    }

    HandoverParts parts_;
    Report report_;
    PhaseTimes times_;
    sys::TimeLine pause_times_;
    Resumed resumed_;
    sys::Moment stands_since_; ///< When the devices were told to come to rest.
    std::string_view step_;
    std::string_view side_ = "source";
    unsigned number_ = 0;
    std::size_t prepared_ = 0;
    bool introduced_ = false;
    bool touched_ = false; ///< The machine may be quiesced or paused.
    bool offered_ = false;
};

} // namespace

Report run_handover(HandoverParts parts, Report report) {
    return SourceRun(std::move(parts), std::move(report)).run();
}

} // namespace godwit::handover
