#pragma once

/// What the copier and the guest's path share, and nothing else (HS-2): cursor, sets of blocks,
/// ranges in flight, counters. The protocol:
///
/// - tracked: the copier first moves the cursor (or takes marks away), then reads. A change marks
///   its blocks below the cursor when it is done and before the guest hears of it. So whatever the
///   copier read too early is marked.
/// - mirrored, redirected, returning: whoever changes blocks, guest or copier, holds a claim on
///   them. The cursor moves when the copier's claim is held; the sides of a change are chosen when
///   the guest's is.
///
/// Blocks are the guest's logical blocks. Owner thread only: the loop of the disk.

#include "block/block_set.h"
#include "block/move/range_locks.h"
#include "block/move/scheme.h"

#include <cstdint>

namespace godwit::block {

/// Bytes written to one device during a move, by what they were for (HS-4).
struct WrittenBytes {
    std::uint64_t guest = 0;      ///< The guest's own writes.
    std::uint64_t first_copy = 0; ///< Each block's first copy.
    std::uint64_t redundant = 0;  ///< Everything else: second copies, second sides, copies back.

    [[nodiscard]] std::uint64_t total() const noexcept { return guest + first_copy + redundant; }
};

struct MoveCounters {
    WrittenBytes source;
    WrittenBytes destination;
    std::uint64_t copied_back_bytes = 0; ///< After a cancel; part of the source's redundant ones.
    std::uint64_t last_pass_bytes = 0;   ///< Copied while the guest's requests were held.
    std::uint64_t source_failures = 0;   ///< Writes of the guest that only the destination took.
};

struct MoveState {
    MoveState(std::uint64_t count, std::uint32_t bytes)
        : blocks(count), block_bytes(bytes), dirty(count), ahead(count), refused(count),
          deferred(count), uncopied(count), written_early(count), returned(count) {}

    std::uint64_t blocks;
    std::uint32_t block_bytes;
    Scheme scheme = Scheme::dbt;
    Routing routing = Routing::tracked;
    /// lr: the source gets every write too, without the guest waiting for it.
    bool safe = false;
    /// aio: reads of what both have go to the destination.
    bool reads_from_destination = false;
    /// Blocks below it have been taken by the copier's first pass.
    std::uint64_t cursor = 0;
    BlockSet dirty; ///< The destination has an older version, or may have.
    BlockSet ahead; ///< Only the destination has the latest version.
    /// Of `ahead`: the source refused them. Until it takes them a flush cannot promise anything,
    /// as after a crash the source is what is left.
    BlockSet refused;
    BlockSet deferred; ///< tiered: hot, left for the pause.
    BlockSet uncopied; ///< tiered: passed by the cursor without a copy.
    /// Changed before the cursor came. tiered, by position: candidates to be deferred (PD,
    /// classification (ii)); safe lr: what the destination has and need not be copied.
    BlockSet written_early;
    /// Copied back to the source, which has not flushed them yet.
    BlockSet returned;
    RangeLocks locks;
    MoveCounters counters;

    [[nodiscard]] BlockRange all() const noexcept { return {.first = 0, .end = blocks}; }
    [[nodiscard]] BlockRange copied() const noexcept { return {.first = 0, .end = cursor}; }
    /// The source has failed a flush, so what came back may be lost there: it has to come again.
    void give_returned_up() {
        for (BlockRange run = returned.next_run(all()); !run.empty();
             run = returned.next_run({.first = run.end, .end = blocks})) {
            ahead.add(run);
        }
        returned.clear();
    }
    [[nodiscard]] std::uint64_t bytes_of(const BlockRange& range) const noexcept {
        return range.count() * block_bytes;
    }
};

} // namespace godwit::block
