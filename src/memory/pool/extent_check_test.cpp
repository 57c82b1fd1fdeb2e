#include "memory/pool/extent_check.h"

namespace godwit::memory {
namespace {

constexpr PoolOwner giver{1};
constexpr PoolOwner stranger{2};

Extent part(std::uint64_t first, std::uint64_t frames, std::uint64_t position) {
    return {.run = {.first = first, .frames = frames},
            .owner = giver,
            .epoch = 3,
            .label = {.purpose = Purpose::program, .tag = 7, .position = position}};
}

/// Frames 0-3 and 6-7 are program 7, 4-5 are free.
std::vector<Extent> make_table() {
    Extent unused = part(4, 2, 0);
    unused.label = {};
    return {part(0, 4, 0), unused, part(6, 2, 4)};
}

Status check(const std::vector<Extent>& list) {
    return check_list(
        list, make_table(), {.owner = giver, .purpose = Purpose::program, .tag = 7, .frames = 6});
}

TEST(ExtentList, a_true_list_is_taken) {
    EXPECT_TRUE(check({part(0, 4, 0), part(6, 2, 4)}).has_value());
}

// MP-7.
TEST(ExtentList, a_false_list_is_refused) {
    EXPECT_FALSE(check({}).has_value());
    EXPECT_FALSE(check({part(0, 4, 0)}).has_value()) << "too short";
    EXPECT_FALSE(check({part(0, 4, 0), part(0, 4, 4)}).has_value()) << "double";
    EXPECT_FALSE(check({part(0, 4, 0), part(2, 2, 4)}).has_value()) << "overlap";
    EXPECT_FALSE(check({part(0, 6, 0)}).has_value()) << "over the end of an extent";
    EXPECT_FALSE(check({part(0, 4, 0), part(8, 2, 4)}).has_value()) << "out of the pool";
    EXPECT_FALSE(check({part(6, 2, 4), part(0, 4, 0)}).has_value()) << "wrong order";
    EXPECT_FALSE(check({part(0, 4, 0), part(4, 2, 4)}).has_value()) << "not the program's";
    Extent foreign = part(6, 2, 4);
    foreign.owner = stranger;
    EXPECT_FALSE(check({part(0, 4, 0), foreign}).has_value()) << "another owner";
    Extent late = part(6, 2, 4);
    late.epoch = 2;
    EXPECT_FALSE(check({part(0, 4, 0), late}).has_value()) << "an old epoch";
}

TEST(ExtentList, an_endless_list_is_refused_unread) {
    EXPECT_FALSE(check(std::vector<Extent>(program_extents_max + 1)).has_value());
}

TEST(Partition, holes_overlaps_and_leavings_are_found) {
    EXPECT_TRUE(check_partition(make_table(), 8).has_value());
    EXPECT_FALSE(check_partition(make_table(), 9).has_value());
    EXPECT_FALSE(check_partition(make_table(), 7).has_value());
    EXPECT_FALSE(check_partition(std::vector{part(0, 4, 0), part(5, 3, 0)}, 8).has_value());
    EXPECT_FALSE(check_partition(std::vector{part(0, 4, 0), part(3, 5, 0)}, 8).has_value());
    EXPECT_FALSE(check_partition(std::vector{part(0, 0, 0), part(0, 8, 0)}, 8).has_value());
    Extent nobody = part(0, 8, 0);
    nobody.owner = {};
    EXPECT_FALSE(check_partition(std::vector{nobody}, 8).has_value());
}

} // namespace
} // namespace godwit::memory
