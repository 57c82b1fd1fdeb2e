#include "block/move/range_locks.h"

#include <array>

namespace godwit::block {
namespace {

using Claim = RangeLocks::Claim;

Claim claim_of(std::uint64_t first, std::uint64_t end) {
    return {.range = {.first = first, .end = end}, .granted = [](Claim&) noexcept {}};
}

TEST(RangeLocks, claims_that_do_not_overlap_are_held_at_once) {
    RangeLocks locks;
    Claim a = claim_of(0, 10);
    Claim b = claim_of(10, 20);
    EXPECT_TRUE(locks.acquire(a));
    EXPECT_TRUE(locks.acquire(b));
}

TEST(RangeLocks, overlapping_claims_are_held_in_the_order_they_came) {
    RangeLocks locks;
    std::array<Claim, 3> claims{claim_of(0, 10), claim_of(5, 15), claim_of(8, 9)};
    EXPECT_TRUE(locks.acquire(claims[0]));
    EXPECT_FALSE(locks.acquire(claims[1]));
    EXPECT_FALSE(locks.acquire(claims[2]));
    locks.release(claims[0]);
    EXPECT_TRUE(claims[1].held);
    EXPECT_FALSE(claims[2].held);
    locks.release(claims[1]);
    EXPECT_TRUE(claims[2].held);
}

TEST(RangeLocks, who_waits_keeps_later_ones_from_overtaking) {
    RangeLocks locks;
    std::array<Claim, 3> claims{claim_of(0, 10), claim_of(5, 25), claim_of(20, 30)};
    EXPECT_TRUE(locks.acquire(claims[0]));
    EXPECT_FALSE(locks.acquire(claims[1]));
    EXPECT_FALSE(locks.acquire(claims[2])); // Overlaps only the one that waits.
    locks.release(claims[1]);               // Gave up.
    EXPECT_TRUE(claims[2].held);
    locks.release(claims[2]);
    locks.release(claims[0]);
    EXPECT_TRUE(locks.empty());
}

TEST(RangeLocks, granted_may_release_others) {
    RangeLocks locks;
    struct Pair {
        RangeLocks& locks;
        Claim& other;
    };
    Claim first = claim_of(0, 10);
    Claim third = claim_of(0, 10);
    Claim second = claim_of(0, 10);
    Pair pair{.locks = locks, .other = second};
    second.owner = &pair;
    second.granted = [](Claim& claim) noexcept {
        auto& both = *static_cast<Pair*>(claim.owner);
        both.locks.release(both.other);
    };
    EXPECT_TRUE(locks.acquire(first));
    EXPECT_FALSE(locks.acquire(second));
    EXPECT_FALSE(locks.acquire(third));
    locks.release(first);
    EXPECT_TRUE(third.held);
}

TEST(RangeLocks, first_claim_waits_for_what_is_held_and_no_other) {
    RangeLocks locks;
    Claim held = claim_of(0, 10);
    Claim waiting = claim_of(5, 25);
    Claim first = claim_of(20, 30);
    Claim again = claim_of(0, 5);
    EXPECT_TRUE(locks.acquire(held));
    EXPECT_FALSE(locks.acquire(waiting));
    EXPECT_TRUE(locks.acquire_first(first));
    EXPECT_FALSE(locks.acquire_first(again));
    locks.release(first);
    EXPECT_FALSE(again.held || waiting.held);
    locks.release(held);
    EXPECT_TRUE(again.held && waiting.held);
}

TEST(RangeLocks, copier_is_told_from_guests) {
    RangeLocks locks;
    Claim guest = claim_of(0, 10);
    Claim copier = claim_of(10, 20);
    copier.holder = RangeLocks::Holder::copier;
    EXPECT_TRUE(locks.acquire(guest));
    EXPECT_TRUE(locks.acquire(copier));
    EXPECT_FALSE(locks.copier_holds({.first = 0, .end = 10}));
    EXPECT_TRUE(locks.copier_holds({.first = 0, .end = 11}));
}

} // namespace
} // namespace godwit::block
