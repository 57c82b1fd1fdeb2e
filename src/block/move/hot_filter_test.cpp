#include "base/units.h"
#include "block/move/hot_filter.h"

#include <random>

namespace godwit::block {
namespace {

constexpr std::uint64_t granule_blocks = 128; // 64 KiB of sectors.

HotFilter make(FilterKind kind, std::uint64_t disk_bytes, std::uint64_t aging = 1U << 30U) {
    return GODWIT_MUST( // Valid options.
        HotFilter::create({.kind = kind, .disk_bytes = disk_bytes, .aging_writes = aging}));
}

void note_granule(HotFilter& filter, std::uint64_t granule) {
    filter.note({.first = granule * granule_blocks, .end = granule * granule_blocks + 8});
}

class HotFilterKinds : public ::testing::TestWithParam<FilterKind> {};

TEST_P(HotFilterKinds, hot_is_what_was_written_as_often_as_the_threshold) {
    HotFilter filter = make(GetParam(), gib);
    for (int i = 0; i < 3; ++i) {
        note_granule(filter, 7);
    }
    EXPECT_FALSE(filter.is_hot(7 * granule_blocks));
    note_granule(filter, 7);
    EXPECT_TRUE(filter.is_hot(7 * granule_blocks + 127));
    EXPECT_FALSE(filter.is_hot(8 * granule_blocks));
}

TEST_P(HotFilterKinds, memory_is_bounded_and_few_cold_parts_look_hot) {
    HotFilter filter = make(GetParam(), 1024 * gib);
    EXPECT_LE(filter.memory_bytes(), mib);
    std::minstd_rand dice(1);
    // A working set of 4 GiB within 1 TiB, and background writes everywhere.
    for (int i = 0; i < 400'000; ++i) {
        note_granule(filter, dice() % 65'536);
        note_granule(filter, dice() % (std::uint64_t{1} << 24U));
    }
    std::uint64_t hot = 0;
    std::uint64_t false_hot = 0;
    for (std::uint64_t granule = 0; granule < 65'536; ++granule) {
        hot += filter.is_hot(granule * granule_blocks) ? 1U : 0U;
        false_hot += filter.is_hot((granule + 1'000'000) * granule_blocks) ? 1U : 0U;
    }
    EXPECT_GT(hot, 55'000U); // Six writes each on average; some got fewer than four.
    EXPECT_LT(false_hot, 8000U);
    RecordProperty("false_hot_of_65536", static_cast<int>(false_hot));
}

TEST_P(HotFilterKinds, what_is_not_written_any_more_cools_down) {
    HotFilter filter = make(GetParam(), gib, 64);
    for (int i = 0; i < 4; ++i) {
        note_granule(filter, 1);
    }
    EXPECT_TRUE(filter.is_hot(granule_blocks));
    for (int i = 0; i < 64; ++i) {
        note_granule(filter, 2);
    }
    EXPECT_FALSE(filter.is_hot(granule_blocks));
}

TEST_P(HotFilterKinds, histogram_counts_every_granule) {
    HotFilter filter = make(GetParam(), 16 * mib);
    note_granule(filter, 3);
    filter.note({.first = 0, .end = 2 * granule_blocks});
    const auto counts = filter.histogram();
    EXPECT_EQ(counts[0], 253U);
    EXPECT_EQ(counts[1], 3U);
}

INSTANTIATE_TEST_SUITE_P(,
                         HotFilterKinds,
                         ::testing::Values(FilterKind::multi_stage, FilterKind::bloom),
                         [](const auto& test) {
                             return test.param == FilterKind::bloom ? "bloom" : "multi_stage";
                         });

TEST(HotFilter, wrong_options_are_refused) {
    EXPECT_FALSE(HotFilter::create({.disk_bytes = 0}).has_value());
    EXPECT_FALSE(HotFilter::create({.disk_bytes = mib, .granule_bytes = 1000}).has_value());
    EXPECT_FALSE(HotFilter::create({.disk_bytes = mib, .threshold = 0}).has_value());
    EXPECT_FALSE(HotFilter::create({.disk_bytes = mib, .threshold = 9}).has_value());
}

} // namespace
} // namespace godwit::block
