#include "control/exchange_run.h"

#include "base/fault_point.h"
#include "base/log.h"
#include "control/host_division.h"
#include "sys/unix_socket.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace godwit::control {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds successor_ready_time_max{15'000};
/// What the predecessor may take beyond its limits for preparing and committing (handover::Limits
/// bounds the other phases) before it counts as silent.
constexpr milliseconds answer_grace{30'000};
/// How long a successor whose predecessor died may take to claim the guest.
constexpr milliseconds claim_time_max{3'000};
constexpr milliseconds cancel_time_max{5'000};
/// How long the process that lost may take to end by itself.
constexpr milliseconds leave_time_max{5'000};

} // namespace

ExchangeRun::ExchangeRun(Supervisor& supervisor,
                         std::string machine,
                         Supervisor::ExchangeRequest request)
    : supervisor_(supervisor), machine_(std::move(machine)), request_(std::move(request)),
      report_(std::make_unique<Json>()) {}

ExchangeRun::~ExchangeRun() = default;

void ExchangeRun::start(std::uint64_t operation) {
    operation_ = operation;
    supervisor_.parts_.operations.set_phase(operation_, phase_);
    const Status launched = launch();
    if (!launched.has_value()) {
        roll_back(launched.error(), Side::destination);
    }
}

Status ExchangeRun::launch() {
    MachineEntry& entry = *GODWIT_TRY(supervisor_.find_or_error(machine_));
    source_ = entry.owner;
    record_ = entry.record;
    if (record_ == nullptr) {
        return Error(ErrorCode::conflict,
                     "the VMM of machine '" + machine_ + "' has not handed out its owner record");
    }
    epoch_ = record_->read().epoch;
    auto [successor_end, source_end] = GODWIT_TRY(sys::MessageSocket::pair());
    source_end_ = std::move(source_end).take();
    if (request_.mode == ExchangeMode::partition) {
        return launch_elsewhere(std::move(successor_end).take());
    }
    // A machine that rests in a keeper has no running hypervisor to be kept apart from.
    const bool kept = entry.state() == "frozen";
    const VmmLaunch options{.program = request_.program,
                            .machine = machine_,
                            .source = {},
                            .incoming = &successor_end.fd(),
                            .ready_time_max = successor_ready_time_max,
                            .partition =
                                kept ? PartitionPolicy::off : supervisor_.parts_.partition};
    const std::weak_ptr<ExchangeRun> weak = weak_from_this();
    Reply<void> ready([weak](const Status& outcome) {
        if (const auto self = weak.lock()) {
            self->successor_ready(outcome);
        }
    });
    Result<std::shared_ptr<VmmInstance>> successor = VmmInstance::launch(
        supervisor_.parts_.loop, supervisor_.parts_.run, options, supervisor_, ready);
    if (!successor.has_value()) {
        ready.dismiss();
        return std::move(successor.error());
    }
    successor_ = std::move(*successor);
    entry.others.push_back(successor_);
    return ok();
}

/// The new instance of a divided host starts the successor on its part.
Status ExchangeRun::launch_elsewhere(sys::Fd successor_end) {
    HostDivision* const division = supervisor_.division();
    if (division == nullptr) {
        return Error(ErrorCode::conflict, "no second hypervisor instance runs on this host");
    }
    const std::weak_ptr<ExchangeRun> weak = weak_from_this();
    division->launch(
        machine_,
        std::move(successor_end),
        Reply<std::shared_ptr<VmmInstance>>([weak](Result<std::shared_ptr<VmmInstance>> launched) {
            if (const auto self = weak.lock()) {
                self->launched_elsewhere(std::move(launched));
            }
        }));
    return ok();
}

void ExchangeRun::launched_elsewhere(Result<std::shared_ptr<VmmInstance>> launched) {
    MachineEntry* const entry = supervisor_.find(machine_);
    if (step_ != Step::launching || entry == nullptr || !launched.has_value()) {
        if (launched.has_value()) {
            (*launched)->kill("its exchange was given up");
        } else if (step_ == Step::launching) {
            roll_back(launched.error(), Side::destination);
        }
        return;
    }
    successor_ = std::move(*launched);
    entry->others.push_back(successor_);
    successor_ready(ok());
}

void ExchangeRun::successor_ready(const Status& outcome) {
    if (step_ != Step::launching) {
        return;
    }
    if (!outcome.has_value()) {
        roll_back(outcome.error(), Side::destination);
        return;
    }
    step_ = Step::handing_over;
    const std::weak_ptr<ExchangeRun> weak = weak_from_this();
    // Before its memory is compared, or never: what it may not see it does not count.
    successor_->show_frames(Reply<void>([weak](const Status&) {
        if (const auto self = weak.lock()) {
            self->hand_over();
        }
    }));
}

void ExchangeRun::hand_over() {
    if (step_ != Step::handing_over) {
        return;
    }
    const std::weak_ptr<ExchangeRun> weak = weak_from_this();
    source_->call("exchange",
                  {{"deadline_ms", request_.deadline.count()},
                   {"prepare_ms", request_.prepare.count()},
                   {"timing", handover::name_of(request_.timing)},
                   {"epoch", epoch_}},
                  request_.deadline + request_.prepare + answer_grace,
                  Reply<Json>([weak](Result<Json> answer) {
                      if (const auto self = weak.lock()) {
                          self->answered(std::move(answer));
                      }
                  }),
                  &source_end_);
    source_end_.reset();
}

void ExchangeRun::answered(Result<Json> answer) {
    if (step_ != Step::handing_over) {
        return;
    }
    if (!answer.has_value()) {
        const ErrorCode code = answer.error().code();
        if (code == ErrorCode::timeout || code == ErrorCode::peer_closed) {
            resolve(answer.error());
        } else {
            roll_back(answer.error(), Side::source);
        }
        return;
    }
    const std::string outcome = text_member(*answer, "outcome");
    const bool committed_there = outcome == "done" || outcome == "failed_after_commit";
    if (committed_there && successor_owns()) {
        committed(std::move(*answer));
    } else if (outcome == "rolled_back") {
        settle(successor_, std::move(*answer));
    } else {
        resolve(Error(ErrorCode::corrupt, "the VMM's report of the exchange makes no sense"));
    }
}

bool ExchangeRun::successor_owns() const {
    return record_->read().owner == successor_->instance();
}

/// Makes sure that the successor does not own the machine, now or later; false if it owns it.
bool ExchangeRun::fence() {
    for (;;) {
        const handover::Ownership now = record_->read();
        if (now.owner == successor_->instance()) {
            return false;
        }
        fault_point("control.exchange.fence");
        // The next epoch for the same owner: from here a claim on what was offered fails, and a
        // source that has not begun yet does not begin.
        // Claimed by a third: our successor's epoch is over, and the claim is not ours to void.
        if (!successor_->alive() || now.tenure == handover::Tenure::claimed ||
            record_->transfer(now, now.owner).has_value()) {
            return true;
        }
    }
}

void ExchangeRun::resolve(const Error& why) {
    step_ = Step::resolving;
    unresolved_ = why;
    log::warn("exchange_unresolved", {{"machine", machine_}, {"reason", why.to_string()}});
    if (why.code() == ErrorCode::peer_closed && source_->alive()) {
        // It is about to end; whether the guest is left depends on it.
        source_is_leaving_ = true;
        arm(leave_time_max, &ExchangeRun::stop_waiting_for_source);
        return;
    }
    decide();
}

/// There is no report: the record says what became of the exchange.
void ExchangeRun::decide() {
    if (step_ != Step::resolving) {
        return;
    }
    if (successor_owns()) {
        committed(committed_report(*unresolved_));
    } else if (source_->alive() && source_is_leaving_) {
        return; // What the successor does meanwhile, its own end too, says nothing about the guest.
    } else if (source_->alive() || !successor_->alive() || waited_for_claim_) {
        roll_back(*unresolved_, Side::source);
    } else {
        // The offer of the dead source may be under way: the successor claims the guest now or
        // ends.
        arm(claim_time_max, &ExchangeRun::give_up_waiting);
    }
}

void ExchangeRun::stop_waiting_for_source() {
    source_is_leaving_ = false;
    decide();
}

void ExchangeRun::give_up_waiting() {
    waited_for_claim_ = true;
    decide();
}

void ExchangeRun::instance_changed(const VmmInstance& vmm) {
    if (&vmm == successor_.get()) {
        decide();
    }
}

Json ExchangeRun::committed_report(const Error& why) const {
    const bool runs = record_->read().tenure == handover::Tenure::running;
    return own_report("failed_after_commit",
                      std::string(runs ? "the guest belongs to the new VMM"
                                       : "the new VMM has claimed the guest and does not run it") +
                          ", but the old one gave no report: " + why.to_string(),
                      Side::source);
}

void ExchangeRun::roll_back(const Error& why, Side side) {
    if (step_ == Step::settling || step_ == Step::over) {
        return;
    }
    // Nothing has been offered while the successor is being launched.
    if (step_ != Step::launching && !fence()) {
        committed(committed_report(why));
        return;
    }
    const bool source_lives = source_ != nullptr && source_->alive();
    Json report = own_report(source_lives ? "rolled_back" : "lost",
                             source_lives ? why.to_string()
                                          : "the guest ended together with its VMM before the "
                                            "new one had taken it over: " +
                                                why.to_string(),
                             side);
    if (successor_ != nullptr) {
        successor_->kill("its exchange was given up");
    }
    settle(successor_, std::move(report));
}

void ExchangeRun::committed(Json report) {
    MachineEntry* const entry = supervisor_.find(machine_);
    if (entry == nullptr) {
        return;
    }
    if (!successor_->alive() || record_->read().tenure == handover::Tenure::claimed) {
        // Nobody runs the guest: the old process keeps its memory and state for a recovery. Should
        // the successor go on after all, its news make it the owner.
        source_->refresh_status(Reply<void>());
        settle(nullptr, std::move(report));
        return;
    }
    std::erase(entry->others, successor_);
    std::erase(entry->others, source_);
    entry->owner = successor_;
    entry->adopted = request_.mode == ExchangeMode::partition; // Then it is no child of ours.
    entry->end.reset();
    entry->program = request_.program;
    entry->recovery_timer.reset();
    if (source_->alive()) {
        entry->others.push_back(source_);
    }
    successor_->refresh_status(Reply<void>());
    let_out();
    settle(source_, std::move(report));
}

/// The guest runs in it, after the switch and outside of it: its partition has served (HR-8).
void ExchangeRun::let_out() {
    letting_out_ = true;
    const std::weak_ptr<ExchangeRun> weak = weak_from_this();
    successor_->let_out(Reply<void>([weak](const Status&) {
        const auto self = weak.lock();
        if (self == nullptr) {
            return;
        }
        self->letting_out_ = false;
        if (std::exchange(self->finish_due_, false)) {
            self->finish();
        }
    }));
}

void ExchangeRun::settle(std::shared_ptr<VmmInstance> loser, Json report) {
    step_ = Step::settling;
    source_end_.reset();
    loser_ = std::move(loser);
    *report_ = std::move(report);
    supervisor_.parts_.operations.set_phase(operation_, "settle");
    if (loser_ == nullptr || !loser_->alive()) {
        finish();
        return;
    }
    arm(leave_time_max, &ExchangeRun::kill_loser);
}

void ExchangeRun::kill_loser() {
    const handover::Ownership now = record_->read();
    const bool lost = loser_ == source_
                          ? now.owner == successor_->instance() &&
                                now.tenure == handover::Tenure::running && successor_->alive()
                          : fence();
    if (lost) {
        loser_->kill("it lost its machine and does not end by itself");
    } else {
        finish(); // It may be the only one that still has the guest.
    }
}

void ExchangeRun::arm(milliseconds delay, void (ExchangeRun::*action)()) {
    const std::weak_ptr<ExchangeRun> weak = weak_from_this();
    Result<sys::EventLoop::Handle> timer =
        supervisor_.parts_.loop.schedule(delay, {}, [weak, action] {
            if (const auto self = weak.lock()) {
                (self.get()->*action)();
            }
        });
    if (timer.has_value()) {
        timer_ = std::move(*timer);
    } else {
        log::error("exchange_timer_missing", {{"reason", timer.error().to_string()}});
    }
}

void ExchangeRun::instance_ended(const VmmInstance& vmm) {
    if (step_ == Step::settling && &vmm == loser_.get()) {
        finish();
        return;
    }
    const bool is_successor = &vmm == successor_.get();
    if (!is_successor && &vmm != source_.get()) {
        return;
    }
    const Error why(ErrorCode::peer_closed,
                    is_successor ? "the new VMM: " + vmm.trouble()
                                 : "the present VMM: " + vmm.trouble());
    if (step_ == Step::launching && !is_successor) {
        roll_back(why, Side::source);
    } else if (step_ == Step::resolving) {
        decide();
    }
    // While handing over, the predecessor reports a dead successor, and a dead predecessor has
    // failed the request already; while launching, "ready" reports the successor.
}

void ExchangeRun::phase_reached(const VmmInstance& vmm, const std::string& phase) {
    if (step_ == Step::handing_over && &vmm == source_.get()) {
        phase_ = phase;
        supervisor_.parts_.operations.set_phase(operation_, phase);
    }
}

Status ExchangeRun::cancel() {
    if (step_ == Step::launching) {
        cancelled_ = true;
        roll_back(Error(ErrorCode::cancelled, "the exchange was cancelled"), Side::source);
        return ok();
    }
    if (step_ == Step::handing_over) {
        // The predecessor takes the offer back if it still can, and reports what became of it.
        cancelled_ = true;
        source_->call("cancel", Json::object(), cancel_time_max, Reply<Json>());
        return ok();
    }
    return Error(ErrorCode::conflict,
                 "the exchange is past the point where it can be cancelled (" + phase_ + ")");
}

void ExchangeRun::add_partition(Json& report) const {
    Json partition = successor_ != nullptr ? successor_->partition_report()
                                           : report_without_partition("no successor was started");
    const Json refused = partition.value("refused_calls", Json::array());
    if (text_member(report, "outcome") != "done" && !refused.empty()) {
        report["reason"] = text_member(report, "reason") + "; its service partition refused it: " +
                           refused.back().get<std::string>();
    }
    report["service_partition"] = std::move(partition);
}

void ExchangeRun::finish() {
    if (letting_out_) {
        finish_due_ = true; // It answers within a limit, or its end answers for it.
        return;
    }
    step_ = Step::over;
    timer_.reset();
    const std::shared_ptr<ExchangeRun> keep = shared_from_this();
    supervisor_.exchanges_.erase(machine_);
    Json& report = *report_;
    report["machine"] = machine_;
    add_partition(report);
    const std::string outcome = text_member(report, "outcome");
    supervisor_.exchange_ended(machine_, report, request_.mode);
    if (MachineEntry* const entry = supervisor_.find(machine_); entry != nullptr) {
        entry->reports.push_back(json_text(report));
        if (entry->reports.size() > reports_per_machine_max) {
            entry->reports.pop_front();
        }
        supervisor_.announce_state(*entry);
    }
    supervisor_.parts_.events.append("exchanged", machine_, {{"report", report}});
    const std::string reason = text_member(report, "reason", "no reason was given");
    if (outcome == "done") {
        supervisor_.parts_.operations.succeed(operation_, report);
    } else if (cancelled_ && outcome == "rolled_back") {
        supervisor_.parts_.operations.fail(
            operation_,
            Error(ErrorCode::cancelled, "the exchange was cancelled; the guest runs on"),
            report);
    } else {
        const std::string text =
            outcome == "rolled_back" ? "the exchange was rolled back, the guest runs on: " : "";
        supervisor_.parts_.operations.fail(
            operation_, Error(ErrorCode::conflict, text + reason), report);
    }
}

Json ExchangeRun::own_report(std::string_view outcome, const std::string& reason, Side side) const {
    const auto status_of = [](const std::shared_ptr<VmmInstance>& vmm) {
        return vmm == nullptr ? VmmStatus{} : vmm->status().value_or(VmmStatus{});
    };
    const VmmStatus before = status_of(source_);
    const VmmStatus after = status_of(successor_);
    const bool done = outcome == "failed_after_commit";
    return {{"operation", "exchange"},
            {"machine", machine_},
            {"outcome", outcome},
            {"reason", reason},
            {"failed_step", step_ == Step::launching ? std::string("prepare") : phase_},
            {"side", side == Side::source ? "source" : "destination"},
            {"build_ids", {before.build_id, after.build_id}},
            {"epochs", {before.epoch, done ? after.epoch : before.epoch}},
            {"phases_us", Json::object()},
            {"blackout_us", nullptr},
            {"guest_bytes_copied", 0}};
}

} // namespace godwit::control
