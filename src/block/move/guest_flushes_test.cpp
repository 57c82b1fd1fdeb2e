#include "block/testing/moving_world.h"

namespace godwit::block {
namespace {

using testing::moving_blocks;
using testing::written;
using Request = testing::MovingRequest;
using World = testing::MovingWorld;

constexpr std::uint64_t block = 5;

/// Until the source has done `write`; the destination keeps it.
void write_to_the_source_only(World& world, Request& write) {
    world.destination_faults->add(
        {.fault = Fault::hold,
         .operation = BlockOperation::write,
         .range = sys::FileRange{.offset = write.block.offset, .bytes = write.block.bytes}});
    const std::uint64_t before = world.source.written_bytes;
    write.submit(world);
    while (world.source.written_bytes == before) {
        GODWIT_ASSERT(world.time.step());
    }
    EXPECT_FALSE(write.outcome.has_value());
}

/// The next flush has it to bring to the medium.
void expect_that_the_source_keeps(World& world, Request& write) {
    EXPECT_FALSE(world.source.unsynced.contains(block));
    world.destination_faults->release_held();
    while (!write.outcome.has_value()) {
        ASSERT_TRUE(world.time.step());
    }
    EXPECT_TRUE(write.outcome->has_value());
    EXPECT_TRUE(world.source.unsynced.contains(block));
    EXPECT_EQ(testing::first_byte_of(world.source, block), written);
    world.run_to_end();
    EXPECT_EQ(world.report->outcome, MoveOutcome::moved);
    EXPECT_EQ(world.report->counters.source.total(), world.source.written_bytes);
    EXPECT_EQ(testing::first_byte_of(world.destination, block), written);
}

class WithBothSides : public ::testing::TestWithParam<Scheme> {};

TEST_P(WithBothSides, write_that_outlasts_a_failed_flush_of_the_source_is_in_the_next) {
    World world;
    ASSERT_TRUE(world.start({.scheme = GetParam(), .safe = true}).has_value());
    world.run_to(moving_blocks / 2);
    Request write(BlockOperation::write, block, 1);
    write_to_the_source_only(world, write);
    world.source_disk->lose_next_flush();
    Request flush(BlockOperation::flush, 0, 0);
    EXPECT_FALSE(flush.run(world));
    expect_that_the_source_keeps(world, write);
}

INSTANTIATE_TEST_SUITE_P(,
                         WithBothSides,
                         ::testing::Values(Scheme::mirror, Scheme::lr),
                         [](const auto& test) { return std::string(name_of(test.param)); });

TEST(GuestFlushes, flush_from_before_the_mirroring_may_fail_in_it) {
    World world;
    ASSERT_TRUE(world.start({.scheme = Scheme::slr, .threshold_bytes = 0}).has_value());
    world.source_faults->add({.fault = Fault::hold, .operation = BlockOperation::flush});
    Request flush(BlockOperation::flush, 0, 0);
    flush.submit(world);
    ASSERT_TRUE(world.device->change_scheme(Scheme::mirror).has_value());
    while (world.device->progress()->scheme != Scheme::mirror) {
        ASSERT_TRUE(world.time.step());
    }
    Request write(BlockOperation::write, block, 1);
    write_to_the_source_only(world, write);
    world.source_disk->lose_next_flush();
    world.source_faults->release_held();
    while (!flush.outcome.has_value()) {
        ASSERT_TRUE(world.time.step());
    }
    EXPECT_FALSE(flush.outcome->has_value());
    expect_that_the_source_keeps(world, write);
}

} // namespace
} // namespace godwit::block
