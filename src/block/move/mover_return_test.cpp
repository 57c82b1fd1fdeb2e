#include "block/testing/moving_world.h"

namespace godwit::block {
namespace {

using testing::first_byte_of;
using testing::moving_block_bytes;
using testing::moving_blocks;
using testing::written;
using Request = testing::MovingRequest;
using World = testing::MovingWorld;

constexpr FaultRule all_writes{.operation = BlockOperation::write, .count = 1'000'000};

TEST(MoverReturn, flush_on_the_way_back_fails_while_the_source_lacks_a_block) {
    World world;
    ASSERT_TRUE(world.start({.scheme = Scheme::mirror}).has_value());
    world.run_to(moving_blocks / 2);
    world.source_faults->add(all_writes);
    Request write(BlockOperation::write, 5, 1);
    Request early(BlockOperation::flush, 0, 0);
    Request late(BlockOperation::flush, 0, 0);
    EXPECT_TRUE(write.run(world)); // Only the destination has it.
    ASSERT_TRUE(world.device->cancel().has_value());
    EXPECT_FALSE(early.run(world));
    EXPECT_EQ(world.device->progress()->phase, MovePhase::returning);
    world.source_faults->clear_rules();
    world.run_to_end();
    EXPECT_EQ(world.report->outcome, MoveOutcome::cancelled);
    EXPECT_TRUE(late.run(world));
    EXPECT_EQ(first_byte_of(world.source, 5), written);
}

TEST(MoverReturn, cancel_of_a_stranded_move_before_its_end_is_told_is_not_lost) {
    World world;
    ASSERT_TRUE(world.start({.scheme = Scheme::lr}).has_value());
    world.run_to(moving_blocks / 2);
    Request write(BlockOperation::write, 5, 1);
    EXPECT_TRUE(write.run(world));
    world.destination_faults->add({.count = 1'000'000});
    while (world.device->progress()->phase != MovePhase::stranded) {
        ASSERT_TRUE(world.time.step());
    }
    EXPECT_FALSE(world.report.has_value());
    world.destination_faults->clear_rules();
    ASSERT_TRUE(world.device->cancel().has_value());
    while (world.device->moving()) {
        ASSERT_TRUE(world.time.step());
    }
    EXPECT_EQ(first_byte_of(world.source, 5), written);
}

TEST(MoverReturn, what_went_back_goes_again_when_its_flush_failed) {
    World world;
    ASSERT_TRUE(world.start({.scheme = Scheme::lr}).has_value());
    world.run_to(moving_blocks / 2);
    Request write(BlockOperation::write, 5, 1);
    EXPECT_TRUE(write.run(world));
    world.source_disk->lose_next_flush();
    ASSERT_TRUE(world.device->cancel().has_value());
    world.run_to_end();
    EXPECT_EQ(world.report->outcome, MoveOutcome::cancelled);
    EXPECT_EQ(world.report->counters.copied_back_bytes, 2U * moving_block_bytes);
    EXPECT_EQ(world.source.durable[5 * moving_block_bytes], written);
}

TEST(MoverReturn, guest_hears_of_a_flush_of_our_own_that_failed) {
    World world;
    ASSERT_TRUE(world.start({.scheme = Scheme::lr}).has_value());
    world.run_to(moving_blocks / 2);
    Request write(BlockOperation::write, 5, 1);
    EXPECT_TRUE(write.run(world));
    world.source_disk->lose_next_flush();
    ASSERT_TRUE(world.device->cancel().has_value());
    Request unsynced(BlockOperation::write, 9, 1);
    unsynced.submit(world); // To the source, and lost with our flush.
    world.run_to_end();
    ASSERT_TRUE(unsynced.outcome.has_value());
    Request first(BlockOperation::flush, 0, 0);
    Request second(BlockOperation::flush, 0, 0);
    EXPECT_FALSE(first.run(world));
    EXPECT_TRUE(second.run(world));
}

} // namespace
} // namespace godwit::block
