#pragma once

/// Checks of extents that somebody else wrote (requirements MP-3, MP-7). Pure functions: nothing is
/// mapped, claimed or touched by them.

#include "base/result.h"
#include "memory/pool/extent.h"

#include <cstdint>
#include <span>
#include <vector>

namespace godwit::memory {

/// Most extents one program's memory may consist of; a list that is longer is refused unread.
inline constexpr std::size_t program_extents_max = 512;

/// The invariant of a whole table: `extents` cover frames [0, frames) in order, each frame exactly
/// once, each with an owner.
[[nodiscard]] Status check_partition(std::span<const Extent> extents, std::uint64_t frames);

/// What a list of extents must be to be taken over.
struct ListRules {
    PoolOwner owner; ///< Everything must belong to this instance now.
    Purpose purpose = Purpose::program;
    std::uint64_t tag = 0;
    std::uint64_t frames = 0; ///< Sum over the list; 0 if any sum is good.
};

/// Refuses a list with an extent out of the pool, doubled, overlapping, of another owner, purpose
/// or program, in another epoch than `table` (a snapshot) shows, or with a gap in the program's
/// memory. The error names the extent.
[[nodiscard]] Status
check_list(std::span<const Extent> list, std::span<const Extent> table, const ListRules& rules);

/// How many frames of a snapshot belong to `owner`.
[[nodiscard]] std::uint64_t frames_of(std::span<const Extent> extents, PoolOwner owner);
/// The extents of one program in a snapshot, in order of their position.
[[nodiscard]] std::vector<Extent>
extents_of(std::span<const Extent> extents, PoolOwner owner, Purpose purpose, std::uint64_t tag);

} // namespace godwit::memory
