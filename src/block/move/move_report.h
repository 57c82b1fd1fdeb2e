#pragma once

/// What a move is asked to do, how far it is, and what became of it. Values; any thread.

#include "base/result.h"
#include "block/move/convergence.h"
#include "block/move/hot_filter.h"
#include "block/move/move_state.h"
#include "sys/clock.h"

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace godwit::block {

/// How tiered tells hot from cold (PD-6).
enum class HotBy : std::uint8_t {
    frequency, ///< The filter, fed before and during the move.
    position,  ///< Changed before the cursor came.
};

/// A move remembers twice as many passes, and decides by the last of them.
inline constexpr std::uint32_t move_passes_limit = 128;

struct MoveOptions {
    Scheme scheme = Scheme::slr;
    /// lr: every write goes to the source as well, behind the guest's back.
    bool safe = false;
    /// aio: reads of what both have go to the destination, if that is the faster one.
    bool reads_from_destination = false;
    std::uint64_t limit_bytes_per_second = 0; ///< Of the copier; 0: none. Not in the pause.
    /// Tracked schemes pause when so much is left (PD-3).
    std::uint64_t threshold_bytes = std::uint64_t{1} << 20U;
    std::uint32_t chunk_bytes = 256 * 1024;
    std::uint32_t depth = 8;
    std::uint32_t passes_max = 30; ///< At most move_passes_limit.
    HotBy hot_by = HotBy::frequency;
    FilterKind filter = FilterKind::multi_stage;
    std::uint8_t hot_threshold = 4;
    std::uint32_t granule_bytes = 64 * 1024;
    /// tiered: most that is left for the pause.
    std::uint64_t deferred_bytes_max = std::uint64_t{16} << 20U;
};

enum class MovePhase : std::uint8_t {
    starting,   ///< Requests from before the move are on their way.
    copying,    ///< First pass.
    passes,     ///< Over what was marked.
    turning,    ///< Tracked becomes mirrored, because passes do not end (PD-8).
    flushing,   ///< The copy becomes durable.
    pausing,    ///< Requests that come are held; those on their way end.
    last_pass,  ///< What was marked and deferred, while requests are held.
    last_flush, ///< The same becomes durable.
    committing, ///< The owner notes where the disk lies.
    returning,  ///< Cancelled: what only the destination has goes back.
    closing,    ///< Cancelled: what went back becomes durable, while requests are held.
    stranded,   ///< Cancelled, and not all of it can be brought back: each side has a part.
    finished,
};

[[nodiscard]] constexpr std::string_view name_of(MovePhase phase) noexcept {
    constexpr std::string_view names[] = {"starting",
                                          "copying",
                                          "passes",
                                          "turning",
                                          "flushing",
                                          "pausing",
                                          "last_pass",
                                          "last_flush",
                                          "committing",
                                          "returning",
                                          "closing",
                                          "stranded",
                                          "finished"};
    return names[static_cast<std::size_t>(phase)];
}

enum class MoveOutcome : std::uint8_t {
    moved,     ///< The guest's disk is the destination, complete and durable.
    cancelled, ///< The guest's disk is the source, complete.
    stranded,  ///< Neither side is complete alone; the guest goes on with both.
};

struct MoveProgress {
    MovePhase phase = MovePhase::starting;
    Scheme scheme = Scheme::slr; ///< As it is now; PD-8 may have changed it.
    std::uint64_t total_bytes = 0;
    std::uint64_t cursor_bytes = 0;
    std::uint64_t copied_bytes = 0; ///< Everything the copier wrote, copies back included.
    std::uint64_t dirty_bytes = 0;
    std::uint64_t deferred_bytes = 0;
    std::uint64_t ahead_bytes = 0;
    std::uint64_t copy_bytes_per_second = 0;  ///< Over the last seconds.
    std::uint64_t guest_bytes_per_second = 0; ///< Changed by the guest, over the same time.
    /// Until the switch at these rates; nothing if it would never end.
    std::optional<sys::Nanoseconds> remaining;
    std::uint64_t tracking_bytes = 0; ///< Memory of sets and filter.
};

struct MoveReport {
    MoveOutcome outcome = MoveOutcome::cancelled;
    Scheme asked = Scheme::slr;
    Scheme ended_as = Scheme::slr;
    std::optional<Error> reason; ///< Of a move that did not come to its end.
    MoveCounters counters;
    std::vector<PassRecord> passes;
    sys::Nanoseconds duration{0};
    sys::Nanoseconds pause{0}; ///< The guest's requests were held for the switch (HS-8).
    sys::Nanoseconds copy_back{0};
    std::uint64_t tracking_bytes = 0; ///< Most memory of sets and filter.
    std::array<std::uint64_t, HotFilter::histogram_size> histogram{}; ///< tiered (PD-1).
};

} // namespace godwit::block
