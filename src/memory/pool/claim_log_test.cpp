#include "memory/pool/claim_log.h"
#include "memory/pool/table_layout.h"

namespace godwit::memory {
namespace {

std::uint64_t word(std::uint32_t slot, std::uint32_t epoch, std::uint64_t frames) {
    return table::pack({.slot = slot, .epoch = epoch, .frames = frames});
}

const std::uint64_t whole = word(1, 1, 8);

Change replace(std::uint64_t first, std::uint64_t before, std::uint64_t after) {
    return {.kind = ChangeKind::replace,
            .state = ChangeState::done,
            .first = first,
            .before = before,
            .after = after};
}

Result<std::size_t> play(std::vector<Change> changes, std::vector<Head> now) {
    return replay({.changes = std::move(changes)}, 8, whole, now);
}

TEST(ClaimLog, records_out_of_order_are_put_in_order_by_their_words) {
    const auto proven =
        play({replace(0, word(2, 2, 8), word(1, 3, 8)), replace(0, whole, word(2, 2, 8))},
             {{.first = 0, .word = word(1, 3, 8)}});
    EXPECT_EQ(GODWIT_MUST(proven), 2U);
}

TEST(ClaimLog, two_changes_of_one_word_are_two_owners) {
    EXPECT_FALSE(play({replace(0, whole, word(2, 2, 8)), replace(0, whole, word(3, 2, 8))},
                      {{.first = 0, .word = word(2, 2, 8)}})
                     .has_value());
}

TEST(ClaimLog, a_change_of_a_word_that_never_stood_is_refused) {
    EXPECT_FALSE(play({replace(4, word(1, 1, 4), word(2, 2, 4))}, {{.first = 0, .word = whole}})
                     .has_value());
}

TEST(ClaimLog, a_split_that_makes_or_loses_frames_is_refused) {
    Change split{.kind = ChangeKind::split,
                 .state = ChangeState::done,
                 .first = 0,
                 .before = whole,
                 .after = word(1, 2, 5),
                 .other_first = 5,
                 .other_after = word(1, 2, 3)};
    const std::vector<Head> now{{.first = 0, .word = word(1, 2, 5)},
                                {.first = 5, .word = word(1, 2, 3)}};
    EXPECT_TRUE(play({split}, now).has_value());
    split.other_after = word(1, 2, 4);
    EXPECT_FALSE(play({split}, now).has_value());
}

TEST(ClaimLog, a_begun_change_happened_unless_the_old_word_still_stands) {
    Change begun = replace(0, whole, word(2, 2, 8));
    begun.state = ChangeState::begun;
    EXPECT_EQ(GODWIT_MUST(play({begun}, {{.first = 0, .word = whole}})), 0U);
    EXPECT_EQ(GODWIT_MUST(play({begun}, {{.first = 0, .word = word(2, 2, 8)}})), 1U);
}

TEST(ClaimLog, an_end_that_is_not_the_tables_is_refused) {
    EXPECT_FALSE(play({}, {{.first = 0, .word = word(2, 2, 8)}}).has_value());
}

} // namespace
} // namespace godwit::memory
