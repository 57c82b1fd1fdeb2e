#include "block/block_set.h"

#include <algorithm>
#include <bit>

namespace godwit::block {

BlockSet::BlockSet(std::uint64_t size) : size_(size), leaves_((size + leaf_bits - 1) / leaf_bits) {}

/// Calls `visit(leaf, word, mask)` for each word that `range` touches.
template <typename Visit>
void BlockSet::for_each_word(BlockRange range, Visit visit) const {
    GODWIT_ASSERT(range.empty() || range.end <= size_);
    for (std::uint64_t block = range.first; block < range.end;) {
        const std::uint64_t bit = block % word_bits;
        const std::uint64_t bits = std::min(word_bits - bit, range.end - block);
        const std::uint64_t ones =
            bits == word_bits ? ~std::uint64_t{0} : (std::uint64_t{1} << bits) - 1;
        visit(block / leaf_bits, block % leaf_bits / word_bits, ones << bit);
        block += bits;
    }
}

namespace {
std::uint64_t ones_of(std::uint64_t word) noexcept {
    return static_cast<std::uint64_t>(std::popcount(word));
}
} // namespace

std::uint64_t BlockSet::add(BlockRange range) {
    std::uint64_t added = 0;
    for_each_word(range, [&](std::uint64_t index, std::uint64_t word, std::uint64_t mask) {
        std::unique_ptr<Leaf>& leaf = leaves_[index];
        if (!leaf) {
            leaf = std::make_unique<Leaf>();
        }
        const std::uint64_t changed = ones_of(mask & ~leaf->words[word]);
        leaf->words[word] |= mask;
        leaf->count += changed;
        added += changed;
    });
    count_ += added;
    return added;
}

std::uint64_t BlockSet::remove(BlockRange range) noexcept {
    std::uint64_t removed = 0;
    for_each_word(range, [&](std::uint64_t index, std::uint64_t word, std::uint64_t mask) {
        Leaf* const leaf = leaves_[index].get();
        if (leaf == nullptr) {
            return;
        }
        const std::uint64_t changed = ones_of(mask & leaf->words[word]);
        leaf->words[word] &= ~mask;
        leaf->count -= changed;
        removed += changed;
    });
    count_ -= removed;
    return removed;
}

void BlockSet::clear() noexcept {
    for (std::unique_ptr<Leaf>& leaf : leaves_) {
        leaf.reset();
    }
    count_ = 0;
}

bool BlockSet::contains(std::uint64_t block) const noexcept {
    GODWIT_ASSERT(block < size_);
    const Leaf* const leaf = leaves_[block / leaf_bits].get();
    return leaf != nullptr &&
           (leaf->words[block % leaf_bits / word_bits] >> (block % word_bits) & 1U) != 0;
}

std::uint64_t BlockSet::count_in(BlockRange range) const noexcept {
    std::uint64_t count = 0;
    for_each_word(range, [&](std::uint64_t index, std::uint64_t word, std::uint64_t mask) {
        const Leaf* const leaf = leaves_[index].get();
        count += leaf == nullptr ? 0 : ones_of(leaf->words[word] & mask);
    });
    return count;
}

std::uint64_t BlockSet::find(std::uint64_t from, std::uint64_t end, bool present) const noexcept {
    while (from < end) {
        const Leaf* const leaf = leaves_[from / leaf_bits].get();
        if (leaf == nullptr || (present && leaf->count == 0)) {
            if (!present) {
                return from;
            }
            from = (from / leaf_bits + 1) * leaf_bits;
            continue;
        }
        const std::uint64_t word = leaf->words[from % leaf_bits / word_bits];
        const std::uint64_t rest = (present ? word : ~word) >> (from % word_bits);
        if (rest != 0) {
            return std::min(end, from + static_cast<std::uint64_t>(std::countr_zero(rest)));
        }
        from = (from / word_bits + 1) * word_bits;
    }
    return end;
}

BlockRange BlockSet::next_run(BlockRange range) const noexcept {
    GODWIT_ASSERT(range.empty() || range.end <= size_);
    const std::uint64_t first = find(range.first, range.end, true);
    return {.first = first, .end = find(first, range.end, false)};
}

BlockRange BlockSet::next_gap(BlockRange range) const noexcept {
    GODWIT_ASSERT(range.empty() || range.end <= size_);
    const std::uint64_t first = find(range.first, range.end, false);
    return {.first = first, .end = find(first, range.end, true)};
}

std::uint64_t BlockSet::memory_bytes() const noexcept {
    const auto taken =
        std::ranges::count_if(leaves_, [](const auto& leaf) { return leaf != nullptr; });
    return leaves_.capacity() * sizeof(leaves_[0]) +
           static_cast<std::uint64_t>(taken) * sizeof(Leaf);
}

} // namespace godwit::block
