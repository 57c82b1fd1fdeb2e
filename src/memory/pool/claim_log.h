#pragma once

/// The append-only log of an ownership table's changes and its offline proof (requirement MP-3).
///
/// Each change is begun in the log before its compare-and-swap and closed after it, so a process
/// that dies in between leaves a record whose outcome the following records tell. replay() is a
/// pure function of the records; it needs no order between processes, because a change names the
/// exact word it replaced and no word comes twice.

#include "base/result.h"
#include "memory/pool/extent.h"

#include <cstdint>
#include <span>
#include <vector>

namespace godwit::memory {

enum class ChangeKind : std::uint64_t { replace = 1, split = 2, merge = 3 };
enum class ChangeState : std::uint64_t { unused = 0, begun = 1, done = 2, refused = 3 };

/// One record. Words are those of the table: owner slot, epoch, frames.
struct Change {
    ChangeKind kind = ChangeKind::replace;
    ChangeState state = ChangeState::unused;
    std::uint64_t first = 0;
    std::uint64_t before = 0;
    std::uint64_t after = 0;
    std::uint64_t other_first = 0;  ///< Split: the tail. Merge: the right one, which goes.
    std::uint64_t other_before = 0; ///< Merge only.
    std::uint64_t other_after = 0;  ///< Split only.
};

struct ClaimLog {
    std::vector<Change> changes;
    std::uint64_t lost = 0; ///< Changes that found the log full.
};

/// A head of the replayed table.
struct Head {
    std::uint64_t first = 0;
    std::uint64_t word = 0;
    friend auto operator<=>(const Head&, const Head&) = default;
};

/// Plays the log from one extent that is the whole pool, up to `now`, the heads of a snapshot.
/// Every change must fit the one before it and keep each frame in exactly one extent, and the end
/// must be `now`. A change that was begun and never closed happened unless `now` still shows the
/// word it was to replace. Returns how many changes were proven; corrupt names the record that has
/// no explanation; resource_exhausted if the log was too short to prove anything.
[[nodiscard]] Result<std::size_t> replay(const ClaimLog& log,
                                         std::uint64_t frames,
                                         std::uint64_t first_word,
                                         std::span<const Head> now);

} // namespace godwit::memory
