#include "block/block_set.h"

#include <random>
#include <set>

namespace godwit::block {
namespace {

constexpr std::uint64_t many = 100'000; // Several leaves.

TEST(BlockSet, random_changes_match_a_plain_set) {
    std::mt19937_64 dice(1);
    BlockSet blocks(many);
    std::set<std::uint64_t> model;
    for (int step = 0; step < 300; ++step) {
        const std::uint64_t first = dice() % many;
        const BlockRange range{.first = first, .end = std::min(many, first + 1 + dice() % 3000)};
        const bool adds = dice() % 3 != 0;
        const std::size_t before = model.size();
        for (std::uint64_t block = range.first; block < range.end; ++block) {
            adds ? static_cast<void>(model.insert(block)) : static_cast<void>(model.erase(block));
        }
        const std::uint64_t changed = adds ? blocks.add(range) : blocks.remove(range);
        ASSERT_EQ(changed, adds ? model.size() - before : before - model.size());
        ASSERT_EQ(blocks.count(), model.size());
    }
    for (std::uint64_t block = 0; block < many; ++block) {
        ASSERT_EQ(blocks.contains(block), model.contains(block)) << block;
    }
}

TEST(BlockSet, runs_and_gaps_are_found_across_words_and_leaves) {
    BlockSet blocks(many);
    blocks.add({.first = 60, .end = 70});
    blocks.add({.first = 40'000, .end = 80'000});
    EXPECT_EQ(blocks.next_run({.first = 0, .end = many}), (BlockRange{60, 70}));
    EXPECT_EQ(blocks.next_run({.first = 70, .end = many}), (BlockRange{40'000, 80'000}));
    EXPECT_TRUE(blocks.next_run({.first = 80'000, .end = many}).empty());
    EXPECT_EQ(blocks.next_gap({.first = 60, .end = many}), (BlockRange{70, 40'000}));
    EXPECT_EQ(blocks.next_gap({.first = 50'000, .end = many}), (BlockRange{80'000, many}));
    EXPECT_TRUE(blocks.next_gap({.first = 50'000, .end = 60'000}).empty());
}

TEST(BlockSet, counts_in_a_part) {
    BlockSet blocks(many);
    blocks.add({.first = 100, .end = 50'000});
    EXPECT_EQ(blocks.count_in({.first = 0, .end = 101}), 1U);
    EXPECT_EQ(blocks.count_in({.first = 40'000, .end = many}), 10'000U);
}

TEST(BlockSet, memory_follows_what_is_marked) {
    BlockSet blocks(std::uint64_t{1} << 31U); // 1 TiB of sectors.
    EXPECT_LT(blocks.memory_bytes(), std::uint64_t{1} << 20U);
    blocks.add({.first = 1'000'000, .end = 1'000'001});
    EXPECT_LT(blocks.memory_bytes(), (std::uint64_t{1} << 20U) + 8192);
    blocks.clear();
    EXPECT_TRUE(blocks.empty());
    EXPECT_FALSE(blocks.contains(1'000'000));
}

} // namespace
} // namespace godwit::block
