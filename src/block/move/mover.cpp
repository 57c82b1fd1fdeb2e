#include "block/move/mover.h"

#include "block/move/estimate.h"

#include <algorithm>
#include <utility>

namespace godwit::block {

namespace {

/// A mirrored move needs a pass for each failure of the source; so many are remembered.
constexpr std::size_t passes_kept_max = 2 * std::size_t{move_passes_limit};

Status check_destination(const BlockGeometry& source, const BlockGeometry& destination) {
    if (destination.read_only) {
        return Error(ErrorCode::permission_denied, "the destination is read-only");
    }
    if (destination.bytes < source.bytes) {
        return Error(ErrorCode::invalid_argument,
                     "the destination has " + std::to_string(destination.bytes) +
                         " bytes, the disk " + std::to_string(source.bytes) +
                         ": make it at least as large");
    }
    if (source.logical_block_bytes % destination.logical_block_bytes != 0) {
        return Error(ErrorCode::unsupported,
                     "the destination has blocks of " +
                         std::to_string(destination.logical_block_bytes) +
                         " bytes, too large for a guest that knows blocks of " +
                         std::to_string(source.logical_block_bytes));
    }
    if (!destination.can_write_zeroes) {
        return Error(ErrorCode::unsupported, "the destination cannot write zeros");
    }
    return ok();
}

} // namespace

Result<std::unique_ptr<Mover>> Mover::create(GuestPath& path,
                                             sys::AlarmClock& clock,
                                             std::unique_ptr<BlockDevice> destination,
                                             const MoveOptions& options,
                                             MoveHooks hooks,
                                             HotFilter* filter) {
    GODWIT_TRY(check_destination(path.source().geometry(), destination->geometry()));
    if (options.passes_max > move_passes_limit) {
        return Error(ErrorCode::invalid_argument,
                     std::to_string(options.passes_max) + " passes for a move: at most " +
                         std::to_string(move_passes_limit));
    }
    if (path.source().geometry().read_only && routing_of(options.scheme) != Routing::tracked) {
        return Error(ErrorCode::invalid_argument,
                     "a disk that is only read is moved by slr: nothing has to be mirrored");
    }
    std::unique_ptr<Mover> made(new Mover(path, clock, options, std::move(hooks)));
    GODWIT_TRY(made->prepare(filter));
    path.attach(made->state_, std::move(destination), *made);
    path.set_filter(made->filter_);
    made->alarm_->set(clock.now()); // The first step comes from the loop.
    return made;
}

Mover::Mover(GuestPath& path, sys::AlarmClock& clock, const MoveOptions& options, MoveHooks hooks)
    : path_(path), clock_(clock), options_(options), hooks_(std::move(hooks)),
      state_(path.source().geometry().bytes / path.source().geometry().logical_block_bytes,
             path.source().geometry().logical_block_bytes),
      started_(clock.now()) {
    state_.scheme = options.scheme;
    state_.routing = routing_of(options.scheme);
    state_.safe = options.safe;
    state_.reads_from_destination = options.reads_from_destination;
    report_.asked = options.scheme;
    samples_.fill({.at = started_});
}

Status Mover::prepare(HotFilter* filter) {
    const std::uint32_t block = state_.block_bytes;
    copier_ = GODWIT_TRY(
        Copier::create(*this,
                       state_.locks,
                       clock_,
                       {.block_bytes = block,
                        .chunk_bytes = std::max(block, options_.chunk_bytes / block * block),
                        .depth = options_.depth,
                        .limit_bytes_per_second = options_.limit_bytes_per_second}));
    alarm_ = GODWIT_TRY(clock_.create_alarm([this] { ring(); }));
    filter_ = filter;
    if (filter_ == nullptr && state_.scheme == Scheme::tiered &&
        options_.hot_by == HotBy::frequency) {
        own_filter_ = GODWIT_TRY(HotFilter::create({.kind = options_.filter,
                                                    .disk_bytes = state_.bytes_of(state_.all()),
                                                    .block_bytes = block,
                                                    .granule_bytes = options_.granule_bytes,
                                                    .threshold = options_.hot_threshold}));
        filter_ = &*own_filter_;
    }
    return ok();
}

Status Mover::change_scheme(Scheme scheme) {
    const bool early = phase_ == MovePhase::starting || phase_ == MovePhase::copying ||
                       phase_ == MovePhase::passes || phase_ == MovePhase::turning;
    if (!early || !may_change(state_.scheme, scheme)) {
        return Error(ErrorCode::conflict,
                     "a move by " + std::string(name_of(state_.scheme)) + " that is " +
                         std::string(name_of(phase_)) + " does not change to " +
                         std::string(name_of(scheme)));
    }
    if (tracked()) {
        wanted_ = scheme;
    } else {
        state_.scheme = scheme;
    }
    return ok();
}

// --- steps ---

/// Whatever happened: looks whether the phase is over. Not recursive: what a step causes is looked
/// at after it.
void Mover::advance() {
    if (std::exchange(advancing_, true)) {
        again_ = true;
        return;
    }
    do {
        again_ = false;
        step();
    } while (again_);
    advancing_ = false;
}

void Mover::step() {
    sample();
    switch (phase_) {
    case MovePhase::starting:
        // A claim protects only from those who take one.
        if (tracked() || path_.plain_changes() == 0) {
            phase_ = MovePhase::copying;
            begin_pass(Pass::first);
        }
        return;
    case MovePhase::copying:
        if (pass_is_over()) {
            first_pass_over();
        }
        return;
    case MovePhase::passes:
        if (pass_is_over()) {
            marked_pass_over();
        }
        return;
    case MovePhase::turning:
        if (path_.plain_changes() == 0) {
            phase_ = MovePhase::passes;
            begin_pass(Pass::marked);
        }
        return;
    case MovePhase::pausing:
        if (path_.drained()) {
            paused();
        }
        return;
    case MovePhase::last_pass:
        if (pass_is_over()) {
            last_pass_over();
        }
        return;
    case MovePhase::returning:
        step_returning();
        return;
    case MovePhase::closing:
        if (path_.drained()) {
            close_return();
        }
        return;
    case MovePhase::flushing:
    case MovePhase::last_flush:
    case MovePhase::committing:
    case MovePhase::stranded:
    case MovePhase::finished:
        return; // An answer of their own ends them.
    }
}

void Mover::begin_pass(Pass pass) {
    pass_ = pass;
    scan_ = 0;
    pass_copied_blocks_ = 0;
    pass_started_ = clock_.now();
    const auto claims =
        tracked() || phase_ == MovePhase::last_pass ? Copier::Claims::none : Copier::Claims::taken;
    if (pass == Pass::back) {
        copier_->start(*path_.destination(), path_.source(), claims);
    } else {
        copier_->start(path_.source(), *path_.destination(), claims);
    }
    again_ = true;
}

bool Mover::pass_is_over() {
    copier_->run();
    return copier_->idle() && copier_->exhausted();
}

void Mover::first_pass_over() {
    phase_ = MovePhase::passes;
    marked_pass_over();
}

void Mover::marked_pass_over() {
    const auto took = static_cast<std::uint64_t>((clock_.now() - pass_started_).count());
    if (report_.passes.size() < passes_kept_max) {
        report_.passes.push_back({.copied_bytes = pass_copied_blocks_ * state_.block_bytes,
                                  .dirty_bytes = state_.dirty.count() * state_.block_bytes,
                                  .deferred_bytes = state_.deferred.count() * state_.block_bytes,
                                  .duration_ns = took});
    }
    decide();
}

void Mover::decide() {
    if (!tracked()) {
        state_.dirty.empty() ? flush(*path_.destination(), FlushFor::pause)
                             : begin_pass(Pass::marked);
        return;
    }
    if (wanted_.has_value()) {
        turn_to(*wanted_);
        return;
    }
    const ConvergenceLimits limits{.threshold_bytes = options_.threshold_bytes,
                                   .passes_max = options_.passes_max};
    switch (advise(report_.passes, limits)) {
    case PassAdvice::pause:
        // What is durable before the pause need not become so in it.
        flush(*path_.destination(), FlushFor::pause);
        return;
    case PassAdvice::go_on:
        begin_pass(Pass::marked);
        return;
    case PassAdvice::mirrored:
        turn_to(Scheme::mirror);
        return;
    }
}

/// From now on the guest's changes go to both, so that what is marked only gets less.
void Mover::turn_to(Scheme mirrored) {
    state_.scheme = mirrored;
    state_.routing = Routing::mirrored;
    state_.cursor = state_.blocks;
    for (BlockRange run = state_.deferred.next_run(state_.all()); !run.empty();
         run = state_.deferred.next_run({.first = run.end, .end = state_.blocks})) {
        state_.dirty.add(run);
    }
    state_.deferred.clear();
    phase_ = MovePhase::turning;
    again_ = true;
}

void Mover::pause() {
    phase_ = MovePhase::pausing;
    paused_at_ = clock_.now();
    path_.hold();
    again_ = true;
}

void Mover::paused() {
    if (too_much_is_left()) {
        // What was on its way has marked more than the pause may take (PD-3).
        phase_ = MovePhase::passes;
        path_.release();
        begin_pass(Pass::marked);
        return;
    }
    for (BlockRange run = state_.deferred.next_run(state_.all()); !run.empty();
         run = state_.deferred.next_run({.first = run.end, .end = state_.blocks})) {
        state_.dirty.add(run);
    }
    state_.deferred.clear();
    if (state_.dirty.empty()) {
        commit();
        return;
    }
    phase_ = MovePhase::last_pass;
    copier_->set_limit(0);
    begin_pass(Pass::marked);
}

bool Mover::too_much_is_left() const noexcept {
    const std::uint64_t left = state_.dirty.count() * state_.block_bytes;
    return left > (tracked() ? options_.threshold_bytes : 0);
}

void Mover::last_pass_over() {
    state_.counters.last_pass_bytes = pass_copied_blocks_ * state_.block_bytes;
    flush(*path_.destination(), FlushFor::commit);
}

void Mover::commit() {
    phase_ = MovePhase::committing;
    if (!hooks_.commit) {
        committed(ok());
        return;
    }
    hooks_.commit([self = std::weak_ptr<Mover*>(self_)](Status answer) {
        if (const auto mover = self.lock()) {
            (*mover)->committed(std::move(answer));
        }
    });
}

void Mover::committed(Status answer) {
    if (!answer.has_value()) {
        give_up(std::move(answer.error()));
    } else {
        report_.pause = clock_.now() - paused_at_;
        finish(MoveOutcome::moved);
    }
    advance();
}

// --- flushes of our own ---

void Mover::flush(BlockDevice& device, FlushFor what) {
    flush_for_ = what;
    flushing_ = true;
    if (what != FlushFor::close) {
        phase_ = what == FlushFor::pause ? MovePhase::flushing : MovePhase::last_flush;
    }
    own_flush_ = {.operation = BlockOperation::flush, .done = &Mover::flush_done, .owner = this};
    device.submit(own_flush_);
    device.kick();
}

void Mover::flush_done(BlockRequest& request, Status status) noexcept {
    Mover& mover = *static_cast<Mover*>(request.owner);
    mover.flushing_ = false;
    if (mover.abandoned_) {
        return;
    }
    mover.flushed(std::move(status));
    mover.advance();
}

void Mover::flushed(Status status) {
    if (phase_ == MovePhase::closing) {
        if (status.has_value()) {
            finish(MoveOutcome::cancelled);
            return;
        }
        state_.give_returned_up();
        path_.owe_failure(status.error());
        back_failed(status.error());
    } else if (phase_ == MovePhase::returning) {
        return; // It was on its way when the move was given up.
    } else if (!status.has_value()) {
        give_up(std::move(status.error()));
    } else if (flush_for_ == FlushFor::commit) {
        commit();
    } else if (too_much_is_left()) {
        phase_ = MovePhase::passes; // More was marked meanwhile.
        begin_pass(Pass::marked);
    } else {
        pause();
    }
}

} // namespace godwit::block
