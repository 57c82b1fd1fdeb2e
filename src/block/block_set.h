#pragma once

/// A set of block numbers of one disk: what is dirty, redirected, deferred. Two levels of bits:
/// leaves of 4 KiB are taken when the first block of their range is added, so that memory follows
/// what is marked. Full: 1 bit per block, that is 32 MiB per TiB of 4 KiB blocks.
///
/// A value; owner thread only. Indexes beyond the size are our own mistake.

#include "base/result.h"

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

namespace godwit::block {

/// Block numbers [first, end).
struct BlockRange {
    std::uint64_t first = 0;
    std::uint64_t end = 0;

    [[nodiscard]] constexpr bool empty() const noexcept { return first >= end; }
    [[nodiscard]] constexpr std::uint64_t count() const noexcept {
        return empty() ? 0 : end - first;
    }
    [[nodiscard]] constexpr bool overlaps(const BlockRange& other) const noexcept {
        return first < other.end && other.first < end;
    }
    friend constexpr bool operator==(const BlockRange&, const BlockRange&) = default;
};
[[nodiscard]] constexpr BlockRange intersect(const BlockRange& a, const BlockRange& b) noexcept {
    return {.first = a.first > b.first ? a.first : b.first, .end = a.end < b.end ? a.end : b.end};
}

class BlockSet {
  public:
    explicit BlockSet(std::uint64_t size = 0);

    /// Each says how many blocks changed.
    std::uint64_t add(BlockRange range);
    std::uint64_t remove(BlockRange range) noexcept;
    void clear() noexcept;

    [[nodiscard]] bool contains(std::uint64_t block) const noexcept;
    [[nodiscard]] std::uint64_t count_in(BlockRange range) const noexcept;
    /// The first run of blocks that are in the set (or, next_gap, that are not) within `range`;
    /// empty if there is none.
    [[nodiscard]] BlockRange next_run(BlockRange range) const noexcept;
    [[nodiscard]] BlockRange next_gap(BlockRange range) const noexcept;

    [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
    [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
    [[nodiscard]] bool empty() const noexcept { return count_ == 0; }
    [[nodiscard]] std::uint64_t memory_bytes() const noexcept;

  private:
    static constexpr std::uint64_t word_bits = 64;
    static constexpr std::size_t leaf_words = 512;
    static constexpr std::uint64_t leaf_bits = word_bits * leaf_words;
    struct Leaf {
        std::array<std::uint64_t, leaf_words> words{};
        std::uint64_t count = 0;
    };

    template <typename Visit>
    void for_each_word(BlockRange range, Visit visit) const;
    /// The first block at or after `from` that is (not) in the set; `end` if there is none.
    [[nodiscard]] std::uint64_t
    find(std::uint64_t from, std::uint64_t end, bool present) const noexcept;

    std::uint64_t size_;
    std::uint64_t count_ = 0;
    std::vector<std::unique_ptr<Leaf>> leaves_; ///< Null: no block of the range.
};

} // namespace godwit::block
