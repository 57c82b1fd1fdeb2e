#pragma once

/// Who owns the frames of a memory pool: a table in shared memory that every hypervisor instance of
/// a host maps (requirements X-6, MP-3, MP-7; format and proof in docs/formats/memory-pool.md).
///
/// The table is a chain: the entry of an extent's first frame says how long it is, and there the
/// next one starts. One 64-bit word holds owner, epoch and length, so every change is one
/// compare-and-swap, and before and after it each frame lies in exactly one extent with one owner.
/// A process that dies at any instruction leaves a good table. Epochs only grow, so a swap from an
/// old view fails; nothing is ever claimed twice.
///
/// Rules for its users: an extent is split, merged and labelled only by its owner, in one process
/// at a time; another instance claims what it was offered (the offer names the epoch) or what a
/// terminated instance left. Whatever another instance may have written is checked before it is
/// used. Thread rule: any thread, any process, except as said.

#include "base/result.h"
#include "memory/pool/claim_log.h"
#include "memory/pool/extent.h"
#include "sys/fd.h"
#include "sys/mapping.h"

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace godwit::memory {

struct TableShape {
    std::uint64_t frames = 0;
    std::uint64_t pool_id = 0;             ///< Random; what speaks of the pool names it.
    std::uint64_t log_records = 1U << 16U; ///< Changes the log can hold.
};
inline constexpr std::uint64_t log_records_max = 1ULL << 24U;

class ExtentTable {
  public:
    /// A table of one free extent, the whole pool, owned by `first` in epoch 1.
    [[nodiscard]] static Result<ExtentTable> create(const TableShape& shape, PoolOwner first);
    /// Maps a table received from another process; corrupt if it is none.
    [[nodiscard]] static Result<ExtentTable> adopt(sys::Fd fd);

    [[nodiscard]] std::uint64_t frames() const noexcept { return shape_.frames; }
    [[nodiscard]] std::uint64_t pool_id() const noexcept { return shape_.pool_id; }
    [[nodiscard]] const sys::Fd& fd() const noexcept { return fd_; }

    /// Makes an instance known, so that it can own extents. At most 255 at a time; idempotent.
    [[nodiscard]] Status register_owner(PoolOwner owner);
    /// Forgets an instance that owns nothing any more; conflict if it does. One that is not known
    /// is forgotten already.
    [[nodiscard]] Status unregister_owner(PoolOwner owner);

    /// All extents at one moment, in order of frames, checked: they cover the pool without hole or
    /// overlap, each with a known owner. corrupt if the table is broken, busy if it never stood
    /// still.
    [[nodiscard]] Result<std::vector<Extent>> snapshot() const;
    /// What stands at the head `expected` names now; conflict if it differs from `expected`.
    [[nodiscard]] Status check_current(const Extent& expected) const;

    /// Makes `next` the owner in the next epoch if `expected` still stands; conflict otherwise. The
    /// claim of requirement MP.
    [[nodiscard]] Result<Extent> claim(const Extent& expected, PoolOwner next);
    /// Writes another label on one's own extent.
    [[nodiscard]] Result<Extent> relabel(const Extent& expected, const Label& label);
    /// Cuts the last `tail_frames` off, which get `tail_label`. Returns {rest, tail}.
    [[nodiscard]] Result<std::pair<Extent, Extent>>
    split(const Extent& expected, std::uint64_t tail_frames, const Label& tail_label);
    /// Joins two neighbours of one owner, both free.
    [[nodiscard]] Result<Extent> merge(const Extent& left, const Extent& right);

    /// The log so far, for replay().
    [[nodiscard]] ClaimLog claim_log() const;
    /// Replays the log against `extents` (a snapshot): the offline proof. Returns the changes
    /// proven.
    [[nodiscard]] Result<std::size_t> prove(const std::vector<Extent>& extents) const;

  private:
    class LogEntry;
    ExtentTable(sys::Fd fd, sys::MappedRegion region, TableShape shape)
        : fd_(std::move(fd)), region_(std::move(region)), shape_(shape) {}
    [[nodiscard]] Result<std::uint32_t> slot_of(PoolOwner owner) const;
    [[nodiscard]] Result<std::vector<std::pair<std::uint64_t, std::uint64_t>>> walk() const;
    [[nodiscard]] Result<Extent> read_extent(std::uint64_t first, std::uint64_t word) const;
    [[nodiscard]] Result<std::uint64_t> word_of(const Extent& extent) const;
    [[nodiscard]] Status check_run(const FrameRun& run) const;
    [[nodiscard]] Error stale(const Extent& expected, std::uint64_t now) const;
    void write_label(std::uint64_t first, const Label& label);
    [[nodiscard]] Status
    swap_word(const Extent& expected, std::uint64_t before, std::uint64_t after);

    sys::Fd fd_;
    sys::MappedRegion region_;
    TableShape shape_;
};

} // namespace godwit::memory
