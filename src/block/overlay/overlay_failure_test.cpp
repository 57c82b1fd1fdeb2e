#include "block/testing/overlay_world.h"
#include "block/testing/perform.h"

namespace godwit::block {
namespace {

constexpr std::uint32_t block = testing::overlay_block_bytes;
constexpr std::uint32_t cluster = testing::overlay_cluster_bytes;

struct World : testing::OverlayWorld {
    explicit World(std::uint64_t blocks = 512) : OverlayWorld(1, blocks, 100 * 4096) {
        std::ranges::fill(base.current, std::byte{0xb0});
        base.durable = base.current;
        open();
    }
    bool write(std::uint64_t place, std::uint64_t bytes, std::byte fill) {
        testing::SingleRequest request(BlockOperation::write, place, bytes, fill);
        return run(request.block, request.outcome);
    }
    bool flush() {
        testing::SingleRequest request(BlockOperation::flush);
        return run(request.block, request.outcome);
    }
    bool fold() {
        std::optional<Status> folded;
        GODWIT_MUST(device->fold([&](Status status) { folded.emplace(std::move(status)); }));
        while (!folded.has_value()) { // Of none that goes on already.
            GODWIT_ASSERT(time.step());
        }
        return folded->has_value();
    }
};

TEST(OverlayFailure, fold_whose_flush_of_the_base_failed_folds_again) {
    World world;
    EXPECT_TRUE(world.write(0, cluster, std::byte{0x11}) && world.flush());
    world.base_disk().lose_next_flush();
    EXPECT_FALSE(world.fold());
    EXPECT_EQ(world.device->status().clusters_mapped, 1U);
    EXPECT_TRUE(world.fold());
    EXPECT_EQ(world.device->status().clusters_mapped, 0U);
    EXPECT_EQ(world.base.durable[0], std::byte{0x11});
}

TEST(OverlayFailure, guest_hears_of_a_flush_that_only_the_fold_asked_for) {
    World world;
    EXPECT_TRUE(world.write(0, cluster, std::byte{0x11}) && world.flush());
    world.base_disk().lose_next_flush();
    EXPECT_FALSE(world.fold());
    EXPECT_FALSE(world.flush());
    EXPECT_TRUE(world.flush());
}

TEST(OverlayFailure, what_a_new_cluster_has_from_the_base_outlives_a_failed_flush) {
    World world;
    EXPECT_TRUE(world.write(0, block, std::byte{0x11}));
    world.delta_disk().lose_next_flush();
    EXPECT_FALSE(world.flush());
    EXPECT_TRUE(world.write(0, block, std::byte{0x22}));
    EXPECT_TRUE(world.flush());
    world.cut_power();
    EXPECT_EQ(world.byte_at(0), std::byte{0x22});
    EXPECT_EQ(world.byte_at(cluster - 1), std::byte{0xb0});
}

TEST(OverlayFailure, first_flush_of_a_reopened_delta_covers_the_base) {
    World world;
    EXPECT_TRUE(world.write(0, cluster, std::byte{0x11}) && world.flush() && world.fold());
    EXPECT_TRUE(world.write(8ULL * cluster, block, std::byte{0x22})); // To the base.
    world.device.reset();
    world.open();
    EXPECT_TRUE(world.flush());
    world.cut_power();
    EXPECT_EQ(world.byte_at(8ULL * cluster), std::byte{0x22});
}

/// A commit that waits for the fold's claim takes what the fold has come to name along; the one
/// that the fold itself waits for fails after it.
TEST(OverlayFailure, what_another_commit_has_named_in_the_base_is_not_written_in_its_slot) {
    World world;
    EXPECT_TRUE(world.write(0, cluster, std::byte{0x11}));
    world.delta_disk().lose_next_flush();
    EXPECT_FALSE(world.flush());
    std::optional<Status> folded;
    GODWIT_MUST(world.device->fold([&](Status status) { folded.emplace(std::move(status)); }));
    EXPECT_TRUE(world.flush());
    EXPECT_FALSE(folded.has_value());
    world.base_disk().lose_next_flush();
    while (!folded.has_value()) {
        ASSERT_TRUE(world.time.step());
    }
    EXPECT_FALSE(folded->has_value());
    EXPECT_TRUE(world.write(0, cluster, std::byte{0x22}));
    EXPECT_FALSE(world.flush()); // Which only the fold had asked for.
    EXPECT_TRUE(world.write(0, cluster, std::byte{0x33}));
    EXPECT_TRUE(world.flush());
    world.cut_power();
    EXPECT_EQ(world.byte_at(0), std::byte{0x33});
}

TEST(OverlayFailure, change_that_waits_for_a_fold_does_not_hold_up_what_is_written_again) {
    World world(1024); // More than one batch of a fold.
    EXPECT_TRUE(world.write(0, cluster, std::byte{0x11}));
    EXPECT_TRUE(world.write(64ULL * cluster, cluster, std::byte{0x22}));
    world.delta_disk().lose_next_flush();
    EXPECT_FALSE(world.flush());
    std::optional<Status> folded;
    GODWIT_MUST(world.device->fold([&](Status status) { folded.emplace(std::move(status)); }));
    testing::SingleRequest across(
        BlockOperation::write, 63ULL * cluster, 2ULL * cluster, std::byte{0x33});
    world.device->submit(across.block);
    EXPECT_TRUE(world.flush());
    while (!folded.has_value() || !across.outcome.has_value()) {
        ASSERT_TRUE(world.time.step());
    }
    EXPECT_TRUE(folded->has_value() && across.outcome->has_value());
    EXPECT_TRUE(world.flush());
    EXPECT_EQ(world.base.durable[64ULL * cluster], std::byte{0x33});
}

} // namespace
} // namespace godwit::block
