#include "memory/guest_memory.h"
#include "memory/pool/pool.h"

#include <array>

namespace godwit::memory {
namespace {

constexpr PoolOwner old_one{0x11};
constexpr PoolOwner new_one{0x22};

Pool make_pool(std::uint64_t frames = 64) {
    return GODWIT_MUST(Pool::create(frames * pool_frame_bytes, old_one, 5));
}

/// A pool whose free frames are every second one: the worst to allocate from.
Pool make_scattered_pool() {
    Pool pool = make_pool();
    std::vector<std::vector<Extent>> singles;
    for (std::uint64_t i = 0; i < 64; ++i) {
        singles.push_back(GODWIT_MUST(pool.allocate(old_one, 1, Purpose::program, i + 1)));
    }
    for (std::uint64_t i = 0; i < 64; i += 2) {
        GODWIT_MUST(pool.free(singles[i])); // Its own extents, nobody else changes them.
    }
    return pool;
}

TEST(Pool, allocation_is_one_extent_while_one_is_large_enough) {
    Pool pool = make_pool();
    const auto a = GODWIT_MUST(pool.allocate(old_one, 16, Purpose::machine, 1));
    const auto b = GODWIT_MUST(pool.allocate(old_one, 48, Purpose::machine, 2));
    EXPECT_EQ(a.size(), 1U);
    EXPECT_EQ(b.size(), 1U);
    EXPECT_EQ(pool.allocate(old_one, 1, Purpose::machine, 3).error().code(),
              ErrorCode::resource_exhausted);
}

TEST(Pool, freed_memory_is_zero_and_whole_again) {
    Pool pool = make_pool();
    const auto a = GODWIT_MUST(pool.allocate(old_one, 16, Purpose::machine, 1));
    const auto b = GODWIT_MUST(pool.allocate(old_one, 16, Purpose::machine, 2));
    const std::array<std::byte, 1> secret{std::byte{42}};
    ASSERT_TRUE(
        sys::pwrite_all(pool.memory_fd(), secret, a[0].run.first * pool_frame_bytes).has_value());
    ASSERT_TRUE(pool.free(a).has_value());
    ASSERT_TRUE(pool.free(b).has_value());
    std::array<std::byte, 1> read{std::byte{1}};
    ASSERT_TRUE(
        sys::pread_exact(pool.memory_fd(), read, a[0].run.first * pool_frame_bytes).has_value());
    EXPECT_EQ(read[0], std::byte{0});
    EXPECT_EQ(GODWIT_MUST(pool.table().snapshot()).size(), 1U);
}

TEST(Pool, memory_of_another_instance_is_neither_handed_out_nor_freed) {
    Pool pool = make_pool();
    ASSERT_TRUE(pool.table().register_owner(new_one).has_value());
    const auto a = GODWIT_MUST(pool.allocate(old_one, 32, Purpose::machine, 1));
    ASSERT_TRUE(pool.table().claim(a[0], new_one).has_value());
    EXPECT_EQ(pool.free(a).error().code(), ErrorCode::conflict);
    EXPECT_EQ(pool.allocate(new_one, 1, Purpose::machine, 2).error().code(),
              ErrorCode::resource_exhausted);
    EXPECT_TRUE(pool.allocate(old_one, 32, Purpose::machine, 2).has_value());
}

TEST(Pool, refused_allocation_changes_nothing) {
    Pool pool = make_scattered_pool();
    const auto before = GODWIT_MUST(pool.table().snapshot());
    EXPECT_FALSE(pool.allocate(old_one, 33, Purpose::machine, 99).has_value());
    EXPECT_EQ(GODWIT_MUST(pool.table().snapshot()), before);
}

TEST(Pool, adopt_refuses_memory_that_is_not_the_tables) {
    Pool pool = make_pool();
    Pool other = make_pool(32);
    EXPECT_FALSE(Pool::adopt(GODWIT_MUST(other.memory_fd().duplicate()),
                             GODWIT_MUST(pool.table().fd().duplicate()))
                     .has_value());
    EXPECT_TRUE(Pool::adopt(GODWIT_MUST(pool.memory_fd().duplicate()),
                            GODWIT_MUST(pool.table().fd().duplicate()))
                    .has_value());
}

TEST(PoolRam, scattered_runs_read_as_one_range) {
    Pool pool = make_scattered_pool();
    const auto extents = GODWIT_MUST(pool.allocate(old_one, 32, Purpose::machine, 100));
    const RamSpec spec{.bytes = 64 * mib, .kind = RamKind::pool, .runs = ram_runs(extents)};
    ASSERT_EQ(spec.runs.size(), 32U);
    auto memory = GODWIT_MUST(GuestMemory::map(
        GODWIT_MUST(RamBacking::adopt(GODWIT_MUST(pool.memory_fd().duplicate()), spec)),
        sys::MapMode::shared));
    ASSERT_TRUE(memory->store(Gpa{2 * mib - 4}, std::uint64_t{0x1122334455667788}).has_value());
    std::uint32_t high = 0;
    ASSERT_TRUE(sys::pread_exact(pool.memory_fd(),
                                 std::as_writable_bytes(std::span(&high, 1)),
                                 spec.runs[1].offset)
                    .has_value());
    EXPECT_EQ(high, 0x11223344U);
    ASSERT_TRUE(memory->release(Gpa{0}, 4 * mib).has_value());
    EXPECT_EQ(GODWIT_MUST(memory->load<std::uint64_t>(Gpa{2 * mib - 4})), 0U);
}

TEST(PoolRam, runs_from_outside_are_checked) {
    Pool pool = make_pool(32);
    const auto adopt = [&](std::vector<PoolRun> runs) {
        return RamBacking::adopt(
                   GODWIT_MUST(pool.memory_fd().duplicate()),
                   {.bytes = 64 * mib, .kind = RamKind::pool, .runs = std::move(runs)})
            .has_value();
    };
    EXPECT_TRUE(adopt({{.offset = 0, .bytes = 64 * mib}}));
    EXPECT_FALSE(adopt({}));
    EXPECT_FALSE(adopt({{.offset = 0, .bytes = 62 * mib}}));
    EXPECT_FALSE(adopt({{.offset = 2 * mib, .bytes = 64 * mib}}));
    EXPECT_FALSE(adopt({{.offset = ~0ULL - 2 * mib + 1, .bytes = 64 * mib}}));
    EXPECT_FALSE(
        adopt({{.offset = 0, .bytes = 34 * mib}, {.offset = 32 * mib, .bytes = 30 * mib}}));
    EXPECT_FALSE(adopt({{.offset = 4096, .bytes = 64 * mib - 4096}}));
}

} // namespace
} // namespace godwit::memory
