#include "block/move/disk_move.h"

#include "base/fault_point.h"
#include "base/log.h"

#include <utility>

namespace godwit::block {

namespace {

/// How often the state is published.
constexpr std::chrono::milliseconds tick_distance(250);
/// And after how many of these an automatic choice is thought over.
constexpr std::uint32_t reconsider_ticks = 20;

} // namespace

DiskMove::DiskMove(Args args)
    : args_(std::move(args)), place_{.path = args_.request.destination, .direct = true} {
    published_ = {.id = static_cast<std::uint64_t>(args_.clock.unix_nanoseconds() / 1000),
                  .disk = args_.name,
                  .source = args_.source,
                  .destination = place_.path,
                  .asked = args_.request.scheme,
                  .estimate_only = args_.request.estimate_only};
}

Result<std::unique_ptr<DiskMove>> DiskMove::start(Args args, DiskDestination& destination) {
    std::unique_ptr<DiskMove> made(new DiskMove(std::move(args)));
    GODWIT_TRY(made->begin(destination));
    return made;
}

Status DiskMove::begin(DiskDestination& destination) {
    const bool automatic = args_.request.scheme == "auto";
    const std::optional<Scheme> named = parse_scheme(args_.request.scheme);
    GODWIT_ASSERT(automatic || named.has_value()); // validate() has said so.
    alarm_ = GODWIT_TRY(args_.clock.create_alarm([this] { tick(); }));
    sys::Fd copy = GODWIT_TRY(destination.image().duplicate());
    device_ = GODWIT_TRY(FileDevice::create(
        std::move(copy), args_.loop, {.name = place_.path, .queue_depth = args_.queue_depth}));
    place_.direct = destination.direct();
    published_.created = destination.created();
    if (automatic) {
        chooser_ = std::make_unique<SchemeChooser>(
            SchemeChooser::Args{.disk = args_.disk,
                                .destination = *device_,
                                .clock = args_.clock,
                                .gamma = args_.request.gamma,
                                .limit_bytes_per_second = args_.request.limit_bytes_per_second,
                                .source_wear = args_.source_wear,
                                .destination_wear = wear_weight_of(destination.image())});
        GODWIT_TRY(chooser_->start(
            [this](Result<SchemeFindings> findings) { chosen(std::move(findings)); }));
    } else {
        GODWIT_TRY(move(*named));
    }
    destination_ = std::move(destination);
    tick();
    return ok();
}

void DiskMove::chosen(Result<SchemeFindings> findings) {
    if (!findings.has_value() || cancelled_) {
        end_early(cancelled_ ? Error(ErrorCode::cancelled, "the move was cancelled")
                             : std::move(findings.error()));
        return;
    }
    log::info("disk_move_scheme_chosen",
              {{"disk", args_.name}, {"why", std::string_view(findings->choice.why)}});
    const Scheme scheme = findings->choice.scheme;
    {
        const std::lock_guard lock(mutex_);
        published_.findings = std::move(*findings);
    }
    if (args_.request.estimate_only) {
        end_early(Error(ErrorCode::cancelled, "only an estimate was asked for"));
        return;
    }
    Status moving = move(scheme);
    if (!moving.has_value()) {
        end_early(std::move(moving.error()));
    }
}

Status DiskMove::move(Scheme scheme) {
    MoveOptions options{.scheme = scheme,
                        .safe = scheme == Scheme::lr && !args_.request.unsafe,
                        .reads_from_destination = args_.request.reads_from_destination,
                        .limit_bytes_per_second = args_.request.limit_bytes_per_second};
    {
        const std::lock_guard lock(mutex_);
        published_.scheme = scheme;
        published_.safe = scheme != Scheme::lr || options.safe;
        if (published_.findings.has_value()) {
            const MoveSituation& now = published_.findings->situation;
            options.reads_from_destination =
                now.destination.read_latency_seconds < now.source.read_latency_seconds;
        }
    }
    traffic_ = args_.disk.traffic();
    traffic_at_ = args_.clock.now();
    MoveHooks hooks;
    hooks.commit = [this](auto answer) { answer(commit()); };
    hooks.finished = [this](const MoveReport& report) { finished(report); };
    return args_.disk.start(std::move(device_), options, std::move(hooks));
}

/// The guest waits. From the good answer on its disk is the destination, for everybody.
Status DiskMove::commit() {
    publish();
    fault_point("block.disk_move.note");
    Status noted = args_.hooks.note ? args_.hooks.note(place_) : ok();
    fault_point("block.disk_move.noted");
    return noted;
}

Status DiskMove::cancel() {
    if (over()) {
        return Error(ErrorCode::conflict, "the move of " + args_.name + " is over already");
    }
    if (args_.disk.moving()) {
        stranded_ = false;
        const Status cancelled = args_.disk.cancel();
        publish();
        return cancelled;
    }
    cancelled_ = true;
    if (chooser_ != nullptr) {
        chooser_->stop();
    }
    return ok();
}

void DiskMove::abandon() noexcept {
    abandoned_ = true;
    if (chooser_ != nullptr) {
        chooser_->abandon();
    }
    device_.reset();
}

void DiskMove::finished(const MoveReport& report) {
    if (report.outcome == MoveOutcome::stranded) {
        log::error("disk_move_stranded",
                   {{"disk", args_.name},
                    {"reason", report.reason.has_value() ? report.reason->to_string() : ""}});
        publish();
        stranded_ = true;
        if (args_.hooks.ended) {
            args_.hooks.ended(args_.name);
        }
        return;
    }
    // Its image stays open as `destination_`, or with the owner: closing frees no blocks here.
    args_.disk.take_retired().reset();
    {
        const std::lock_guard lock(mutex_);
        published_.report = report;
    }
    end();
}

void DiskMove::end_early(Error reason) {
    early_ = std::move(reason);
    alarm_->set(args_.clock.now());
}

void DiskMove::ended_early() {
    device_.reset();
    {
        const std::lock_guard lock(mutex_);
        published_.report = MoveReport{.outcome = MoveOutcome::cancelled,
                                       .asked = published_.scheme,
                                       .ended_as = published_.scheme,
                                       .reason = std::move(early_)};
    }
    end();
}

void DiskMove::end() {
    alarm_->clear();
    discard(args_.disk.stop_observing(), "no move goes on any more");
    {
        const std::lock_guard lock(mutex_);
        published_.phase = name_of(MovePhase::finished);
    }
    over_ = true;
    if (!abandoned_ && args_.hooks.ended) {
        args_.hooks.ended(args_.name);
    }
}

void DiskMove::tick() {
    if (over() || abandoned_) {
        return;
    }
    if (early_.has_value()) {
        ended_early();
        return;
    }
    publish();
    if (++ticks_ % reconsider_ticks == 0 && args_.disk.moving()) {
        reconsider();
    }
    alarm_->set(args_.clock.now() + tick_distance);
}

/// What the guest does now may speak for another scheme than what it did before.
void DiskMove::reconsider() {
    std::optional<SchemeFindings> findings = state().findings;
    const std::optional<MoveProgress> progress = args_.disk.progress();
    if (!findings.has_value() || !progress.has_value()) {
        return;
    }
    const GuestTraffic now = args_.disk.traffic();
    findings->situation.workload =
        workload_between(traffic_, now, args_.clock.now() - traffic_at_, args_.disk.observed());
    traffic_ = now;
    traffic_at_ = args_.clock.now();
    const Estimates estimates = estimate_all(findings->situation);
    const std::optional<Scheme> better = block::reconsider(progress->scheme, estimates);
    if (!better.has_value() || !args_.disk.change_scheme(*better).has_value()) {
        return;
    }
    log::info(
        "disk_move_scheme_changed",
        {{"disk", args_.name}, {"from", name_of(progress->scheme)}, {"to", name_of(*better)}});
    const std::lock_guard lock(mutex_);
    ++published_.changes;
}

void DiskMove::publish() {
    const std::optional<MoveProgress> progress = args_.disk.progress();
    const std::lock_guard lock(mutex_);
    if (progress.has_value()) {
        published_.progress = *progress;
        published_.scheme = progress->scheme;
        published_.phase = name_of(progress->phase);
    } else if (chooser_ != nullptr && !published_.findings.has_value()) {
        published_.phase = chooser_->phase();
        published_.progress.total_bytes = args_.disk.geometry().bytes;
    }
}

DiskMoveState DiskMove::state() const {
    const std::lock_guard lock(mutex_);
    return published_;
}

} // namespace godwit::block
