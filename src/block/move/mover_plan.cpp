// What the copier copies in each pass, and how far it is.
#include "block/move/mover.h"

#include <algorithm>

namespace godwit::block {

namespace {
constexpr std::chrono::milliseconds sample_distance(200);
} // namespace

std::optional<BlockRange> Mover::next_range(std::uint64_t blocks_max) {
    if (pass_ == Pass::first) {
        if (state_.cursor >= state_.blocks) {
            return std::nullopt;
        }
        return BlockRange{.first = state_.cursor,
                          .end = std::min(state_.blocks, state_.cursor + blocks_max)};
    }
    const BlockSet& marks = pass_ == Pass::back ? state_.ahead : state_.dirty;
    BlockRange run = marks.next_run({.first = scan_, .end = state_.blocks});
    if (run.empty()) {
        return std::nullopt;
    }
    run.end = std::min(run.end, run.first + blocks_max);
    scan_ = run.end;
    return run;
}

void Mover::select(const BlockRange& range, std::vector<BlockRange>& runs) {
    switch (pass_) {
    case Pass::first:
        state_.cursor = range.end; // Before anything is read: the rule of tracking.
        select_first(range, runs);
        return;
    case Pass::marked:
        select_marked(range, runs);
        return;
    case Pass::back:
        for (BlockRange run = state_.ahead.next_run(range); !run.empty();
             run = state_.ahead.next_run({.first = run.end, .end = range.end})) {
            runs.push_back(run);
        }
        return;
    }
}

void Mover::select_first(const BlockRange& range, std::vector<BlockRange>& runs) {
    if (state_.routing == Routing::redirected) {
        // What the guest has written at the destination is the latest version (HS-4).
        const BlockSet& there = state_.safe ? state_.written_early : state_.ahead;
        for (BlockRange gap = there.next_gap(range); !gap.empty();
             gap = there.next_gap({.first = gap.end, .end = range.end})) {
            runs.push_back(gap);
        }
    } else if (state_.scheme == Scheme::tiered) {
        select_cold(range, runs);
    } else {
        runs.push_back(range);
    }
}

void Mover::select_marked(const BlockRange& range, std::vector<BlockRange>& runs) {
    for (BlockRange run = state_.dirty.next_run(range); !run.empty();
         run = state_.dirty.next_run({.first = run.end, .end = range.end})) {
        // Taken away before it is read: the rule of tracking.
        state_.dirty.remove(run);
        if (state_.scheme == Scheme::tiered && phase_ == MovePhase::passes) {
            select_cold(run, runs);
            continue;
        }
        // What the source has refused to take it cannot give.
        for (BlockRange gap = state_.ahead.next_gap(run); !gap.empty();
             gap = state_.ahead.next_gap({.first = gap.end, .end = run.end})) {
            runs.push_back(gap);
        }
    }
}

/// Granule by granule: the hot ones wait for the pause (PD, heuristic extensions).
void Mover::select_cold(const BlockRange& range, std::vector<BlockRange>& runs) {
    const std::uint64_t granule =
        std::max<std::uint64_t>(1, options_.granule_bytes / state_.block_bytes);
    for (std::uint64_t first = range.first; first < range.end;) {
        const BlockRange part{.first = first,
                              .end = std::min(range.end, (first / granule + 1) * granule)};
        first = part.end;
        if (defers(part)) {
            state_.deferred.add(part);
            if (pass_ == Pass::first) {
                state_.uncopied.add(part);
            }
        } else if (!runs.empty() && runs.back().end == part.first) {
            runs.back().end = part.end;
        } else {
            runs.push_back(part);
        }
    }
}

bool Mover::defers(const BlockRange& part) const {
    const std::uint64_t blocks_max = options_.deferred_bytes_max / state_.block_bytes;
    if (state_.deferred.count() + part.count() > blocks_max) {
        return false;
    }
    return options_.hot_by == HotBy::position ? state_.written_early.count_in(part) > 0
                                              : filter_ != nullptr && filter_->is_hot(part.first);
}

void Mover::copied(const BlockRange& run) {
    const std::uint64_t bytes = state_.bytes_of(run);
    copied_blocks_ += run.count();
    pass_copied_blocks_ += run.count();
    switch (pass_) {
    case Pass::first:
        state_.counters.destination.first_copy += bytes;
        return;
    case Pass::marked: {
        const std::uint64_t first = state_.uncopied.remove(run) * state_.block_bytes;
        state_.counters.destination.first_copy += first;
        state_.counters.destination.redundant += bytes - first;
        return;
    }
    case Pass::back:
        state_.ahead.remove(run);
        state_.refused.remove(run);
        state_.returned.add(run);
        state_.counters.source.redundant += bytes;
        state_.counters.copied_back_bytes += bytes;
        brought_back_ = true;
        return;
    }
}

// --- how far it is ---

void Mover::sample() noexcept {
    const sys::Moment now = clock_.now();
    const Sample& last = samples_[(next_sample_ + samples_max - 1) % samples_max];
    if (now - last.at >= sample_distance) {
        samples_[next_sample_] = {.at = now,
                                  .copied = copied_blocks_ * state_.block_bytes,
                                  .changed = path_.traffic().changed_bytes};
        next_sample_ = (next_sample_ + 1) % samples_max;
    }
}

std::uint64_t Mover::tracking_bytes() const noexcept {
    return state_.dirty.memory_bytes() + state_.ahead.memory_bytes() +
           state_.deferred.memory_bytes() + state_.uncopied.memory_bytes() +
           state_.written_early.memory_bytes() + state_.returned.memory_bytes() +
           (filter_ == nullptr ? 0 : filter_->memory_bytes());
}

void Mover::set_limit(std::uint64_t bytes_per_second) noexcept {
    options_.limit_bytes_per_second = bytes_per_second;
    copier_->set_limit(bytes_per_second);
}

MoveProgress Mover::progress() const {
    const Sample& oldest = samples_[next_sample_];
    MoveProgress progress{.phase = phase_,
                          .scheme = state_.scheme,
                          .total_bytes = state_.bytes_of(state_.all()),
                          .cursor_bytes = state_.bytes_of(state_.copied()),
                          .copied_bytes = copied_blocks_ * state_.block_bytes,
                          .dirty_bytes = state_.dirty.count() * state_.block_bytes,
                          .deferred_bytes = state_.deferred.count() * state_.block_bytes,
                          .ahead_bytes = state_.ahead.count() * state_.block_bytes,
                          .tracking_bytes = tracking_bytes()};
    const double seconds =
        std::max(1e-3, std::chrono::duration<double>(clock_.now() - oldest.at).count());
    const double copies = static_cast<double>(progress.copied_bytes - oldest.copied) / seconds;
    const double changes =
        static_cast<double>(path_.traffic().changed_bytes - oldest.changed) / seconds;
    progress.copy_bytes_per_second = static_cast<std::uint64_t>(copies);
    progress.guest_bytes_per_second = static_cast<std::uint64_t>(changes);
    const std::uint64_t left = pass_ == Pass::back
                                   ? progress.ahead_bytes
                                   : progress.total_bytes - progress.cursor_bytes +
                                         progress.dirty_bytes + progress.deferred_bytes;
    // Tracked: what the guest changes meanwhile is copied again, at worst all of it.
    const double gains = tracked() ? copies - changes : copies;
    if (left == 0 || gains > 0) {
        progress.remaining = sys::Nanoseconds(
            left == 0 ? 0 : static_cast<std::int64_t>(static_cast<double>(left) / gains * 1e9));
    }
    return progress;
}

} // namespace godwit::block
