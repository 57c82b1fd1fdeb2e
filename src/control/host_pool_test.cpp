#include "control/host_pool.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace godwit::control {
namespace {

TEST(HostPool, places_machines_until_it_is_full_and_takes_their_memory_back) {
    HostPool pool(64 * mib);
    const auto a = GODWIT_MUST(pool.place("a", 32 * mib));
    ASSERT_EQ(a.size(), 1U);
    EXPECT_EQ(a[0].bytes, 32 * mib);
    const auto b = pool.place("b", 64 * mib);
    ASSERT_FALSE(b.has_value());
    EXPECT_EQ(b.error().code(), ErrorCode::resource_exhausted);
    EXPECT_NE(b.error().to_string().find("has 32 MiB free"), std::string::npos);
    EXPECT_EQ(pool.place("a", 2 * mib).error().code(), ErrorCode::conflict);
    ASSERT_TRUE(pool.give_back("a").has_value());
    EXPECT_TRUE(pool.place("b", 64 * mib).has_value());
}

TEST(HostPool, without_one_a_machine_is_refused_with_what_to_do) {
    HostPool none(0);
    const auto placed = none.place("a", 32 * mib);
    ASSERT_FALSE(placed.has_value());
    EXPECT_EQ(placed.error().code(), ErrorCode::unsupported);
    EXPECT_NE(placed.error().to_string().find("--pool SIZE"), std::string::npos);
    EXPECT_EQ(none.facts({})["bytes"], 0);
}

// A godwitd that was killed: the next one gets the pool from a VMM, frees what nobody uses and
// takes over what a second instance, which has ended too, had.
TEST(HostPool, next_godwitd_finds_the_pool_and_tidies_it) {
    HostPool first(64 * mib);
    const auto a = GODWIT_MUST(first.place("a", 32 * mib));
    GODWIT_MUST(first.place("dead", 4 * mib)); // There is room.
    memory::ExtentTable& table = first.pool()->table();
    ASSERT_TRUE(table.register_owner({77}).has_value());
    const auto all = GODWIT_MUST(table.snapshot());
    const auto free = memory::extents_of(all, first.self(), memory::Purpose::free, 0);
    ASSERT_TRUE(table.claim(free.front(), {77}).has_value());

    HostPool next({});
    ASSERT_TRUE(next.adopt(GODWIT_MUST(first.pool()->memory_fd().duplicate()),
                           GODWIT_MUST(table.fd().duplicate()),
                           "a")
                    .has_value());
    ASSERT_TRUE(next.keep_only({"a"}).has_value());
    EXPECT_EQ(next.self(), first.self());
    EXPECT_EQ(next.free_frames(), 16U);
    const Json facts = next.facts({"a"});
    EXPECT_EQ(facts["free_bytes"], 32 * mib);
    EXPECT_GT(facts["changes_proven"], 0);
}

TEST(HostPool, another_pool_than_the_known_one_is_refused) {
    HostPool one(64 * mib);
    HostPool other(64 * mib);
    GODWIT_MUST(one.place("a", 2 * mib));   // There is room.
    GODWIT_MUST(other.place("b", 2 * mib)); // There is room.
    EXPECT_EQ(one.adopt(GODWIT_MUST(other.pool()->memory_fd().duplicate()),
                        GODWIT_MUST(other.pool()->table().fd().duplicate()),
                        "b")
                  .error()
                  .code(),
              ErrorCode::conflict);
}

} // namespace
} // namespace godwit::control
