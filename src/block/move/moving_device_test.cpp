#include "block/testing/moving_world.h"

#include <algorithm>
#include <array>

namespace godwit::block {
namespace {

using std::chrono::milliseconds;
using testing::Medium;
using testing::SimulatedDisk;

constexpr std::uint32_t block_bytes = testing::moving_block_bytes;
constexpr std::uint64_t disk_bytes = testing::moving_disk_bytes;
constexpr std::uint64_t blocks = testing::moving_blocks;

using World = testing::MovingWorld;
using Request = testing::MovingRequest;
using testing::first_byte_of;
using testing::original;
using testing::written;

// --- every scheme ---

class EveryScheme : public ::testing::TestWithParam<Scheme> {};

TEST_P(EveryScheme, disk_that_rests_is_copied_once_and_durable) {
    World world;
    const auto before = world.source.current;
    ASSERT_TRUE(world.start({.scheme = GetParam()}).has_value());
    world.run_to_end();
    EXPECT_EQ(world.report->outcome, MoveOutcome::moved);
    EXPECT_EQ(world.destination.durable, before);
    EXPECT_EQ(world.report->counters.destination.first_copy, disk_bytes);
    EXPECT_EQ(world.report->counters.destination.redundant, 0U);
    EXPECT_EQ(world.report->counters.last_pass_bytes, 0U);
    Request write(BlockOperation::write, 3, 1);
    EXPECT_TRUE(write.run(world));
    EXPECT_EQ(first_byte_of(world.destination, 3), written);
    EXPECT_EQ(world.source.current, before);
}

TEST_P(EveryScheme, writes_on_both_sides_of_the_cursor_arrive) {
    World world;
    ASSERT_TRUE(world.start({.scheme = GetParam(), .threshold_bytes = 0}).has_value());
    world.run_to(blocks / 2);
    Request behind(BlockOperation::write, 5, 3);
    Request across(BlockOperation::write, blocks / 2 - 40, 200);
    Request zeroes(BlockOperation::write_zeroes, blocks - 8, 2);
    EXPECT_TRUE(behind.run(world) && across.run(world) && zeroes.run(world));
    world.run_to_end();
    EXPECT_EQ(world.report->outcome, MoveOutcome::moved);
    EXPECT_EQ(first_byte_of(world.destination, 4), std::byte{5});
    EXPECT_EQ(first_byte_of(world.destination, 7), written);
    EXPECT_EQ(first_byte_of(world.destination, blocks / 2 + 159), written);
    EXPECT_EQ(first_byte_of(world.destination, blocks - 7), std::byte{0});
}

TEST_P(EveryScheme, cancel_at_any_part_gives_a_complete_source_back) {
    for (const std::uint64_t percent : {10U, 50U, 90U}) {
        World world;
        ASSERT_TRUE(world.start({.scheme = GetParam()}).has_value());
        world.run_to(blocks * percent / 100);
        Request behind(BlockOperation::write, 5, 1);
        Request ahead(BlockOperation::write, blocks - 5, 1);
        EXPECT_TRUE(behind.run(world) && ahead.run(world));
        ASSERT_TRUE(world.device->cancel().has_value());
        world.run_to_end();
        EXPECT_EQ(world.report->outcome, MoveOutcome::cancelled);
        EXPECT_EQ(world.report->reason->code(), ErrorCode::cancelled);
        EXPECT_EQ(first_byte_of(world.source, 5), written);
        EXPECT_EQ(first_byte_of(world.source, blocks - 5), written);
        EXPECT_EQ(world.report->counters.copied_back_bytes,
                  GetParam() == Scheme::lr ? 2U * block_bytes : 0U);
        EXPECT_NE(world.device->take_retired(), nullptr);
    }
}

TEST_P(EveryScheme, destination_that_fails_is_left_and_nobody_notices) {
    World world;
    ASSERT_TRUE(world.start({.scheme = GetParam()}).has_value());
    world.run_to(blocks / 2);
    world.destination_faults->add({.operation = BlockOperation::write, .count = 1'000'000});
    Request write(BlockOperation::write, 5, 1);
    EXPECT_TRUE(write.run(world));
    world.run_to_end();
    EXPECT_EQ(world.report->outcome, MoveOutcome::cancelled);
    EXPECT_EQ(world.report->reason->code(), ErrorCode::io);
    EXPECT_EQ(first_byte_of(world.source, 5), written);
}

TEST_P(EveryScheme, refused_commit_leaves_the_source) {
    World world;
    MoveHooks hooks;
    hooks.commit = [](std::move_only_function<void(Status)> answer) {
        answer(Error(ErrorCode::io, "no room for the record"));
    };
    hooks.finished = [&](const MoveReport& result) { world.report = result; };
    ASSERT_TRUE(
        world.device
            ->start(world.faulty(world.destination), {.scheme = GetParam()}, std::move(hooks))
            .has_value());
    Request write(BlockOperation::write, 5, 1);
    EXPECT_TRUE(write.run(world));
    world.run_to_end();
    EXPECT_EQ(world.report->outcome, MoveOutcome::cancelled);
    EXPECT_EQ(first_byte_of(world.source, 5), written);
}

INSTANTIATE_TEST_SUITE_P(, EveryScheme, ::testing::ValuesIn(all_schemes), [](const auto& test) {
    return std::string(name_of(test.param));
});

// --- what each scheme promises ---

TEST(MovingDevice, mirror_writes_both_behind_the_cursor_and_the_source_before_it) {
    World world;
    ASSERT_TRUE(world.start({.scheme = Scheme::mirror}).has_value());
    world.run_to(blocks / 2);
    Request behind(BlockOperation::write, 5, 1);
    Request before(BlockOperation::write, blocks - 5, 1);
    EXPECT_TRUE(behind.run(world) && before.run(world));
    EXPECT_EQ(first_byte_of(world.source, 5), written);
    EXPECT_EQ(first_byte_of(world.destination, 5), written);
    EXPECT_EQ(first_byte_of(world.source, blocks - 5), written);
    EXPECT_EQ(first_byte_of(world.destination, blocks - 5), std::byte{0});
    world.run_to_end();
    EXPECT_EQ(world.report->counters.destination.redundant, block_bytes);
    EXPECT_EQ(world.report->counters.last_pass_bytes, 0U);
}

TEST(MovingDevice, lr_writes_single_sectors_at_the_destination_and_nothing_twice) {
    World world;
    ASSERT_TRUE(world.start({.scheme = Scheme::lr}).has_value());
    world.run_to(blocks / 2);
    Request behind(BlockOperation::write, 5, 1);
    Request before(BlockOperation::write, blocks - 5, 1); // One sector of a chunk of sixteen.
    EXPECT_TRUE(behind.run(world) && before.run(world));
    EXPECT_EQ(first_byte_of(world.source, blocks - 5), original(blocks - 5));
    Request read(BlockOperation::read, blocks - 6, 3);
    EXPECT_TRUE(read.run(world)); // From both sides.
    EXPECT_EQ(read.memory[0], original(blocks - 6));
    EXPECT_EQ(read.memory[block_bytes], written);
    EXPECT_EQ(read.memory[2ULL * block_bytes], original(blocks - 4));
    world.run_to_end();
    EXPECT_EQ(world.report->counters.destination.redundant, 0U);
    EXPECT_EQ(world.report->counters.source.total(), 0U);
    EXPECT_EQ(world.report->counters.destination.first_copy, disk_bytes - block_bytes);
    EXPECT_EQ(first_byte_of(world.destination, blocks - 5), written);
}

TEST(MovingDevice, safe_lr_brings_every_write_to_the_source_too) {
    World world;
    ASSERT_TRUE(world.start({.scheme = Scheme::lr, .safe = true}).has_value());
    world.run_to(blocks / 2);
    Request before(BlockOperation::write, blocks - 5, 1);
    EXPECT_TRUE(before.run(world));
    world.run_to_end();
    EXPECT_EQ(first_byte_of(world.source, blocks - 5), written);
    EXPECT_EQ(world.report->counters.source.redundant, block_bytes);
    EXPECT_EQ(world.report->counters.destination.redundant, 0U);
}

TEST(MovingDevice, slr_sends_again_only_what_was_copied_and_dbt_everything) {
    std::array<std::uint64_t, 2> redundant{};
    for (const Scheme scheme : {Scheme::slr, Scheme::dbt}) {
        World world;
        ASSERT_TRUE(world.start({.scheme = scheme, .threshold_bytes = 0}).has_value());
        world.run_to(blocks / 2);
        Request behind(BlockOperation::write, 5, 1);
        Request before(BlockOperation::write, blocks - 5, 1);
        EXPECT_TRUE(behind.run(world) && before.run(world));
        world.run_to_end();
        redundant[scheme == Scheme::dbt ? 1 : 0] = world.report->counters.destination.redundant;
    }
    EXPECT_EQ(redundant[0], block_bytes);
    EXPECT_EQ(redundant[1], 2U * block_bytes);
}

class AioSlowSide : public ::testing::TestWithParam<bool> {};

TEST_P(AioSlowSide, write_is_done_at_the_faster_and_flush_waits_for_both) {
    World world;
    ASSERT_TRUE(world.start({.scheme = Scheme::aio}).has_value());
    world.run_to(blocks / 2);
    FaultDevice& slow = GetParam() ? *world.source_faults : *world.destination_faults;
    slow.add({.fault = Fault::delay,
              .operation = BlockOperation::write,
              .range = sys::FileRange{.offset = 5ULL * block_bytes, .bytes = block_bytes},
              .delay = milliseconds(50)});
    const sys::Moment start = world.time.now();
    Request write(BlockOperation::write, 5, 1);
    EXPECT_TRUE(write.run(world));
    EXPECT_LT(world.time.now() - start, milliseconds(1));
    Request read(BlockOperation::read, 4, 3);
    EXPECT_TRUE(read.run(world));
    EXPECT_EQ(read.memory[block_bytes], written);
    EXPECT_LT(world.time.now() - start, milliseconds(1));
    Request flush(BlockOperation::flush, 0, 0);
    EXPECT_TRUE(flush.run(world));
    EXPECT_GE(world.time.now() - start, milliseconds(50));
}

INSTANTIATE_TEST_SUITE_P(, AioSlowSide, ::testing::Bool(), [](const auto& test) {
    return test.param ? "source" : "destination";
});

TEST(MovingDevice, aio_bounds_what_the_slow_side_owes) {
    World world;
    ASSERT_TRUE(world.start({.scheme = Scheme::aio}).has_value());
    world.run_to(blocks / 2);
    world.source_faults->add({.fault = Fault::delay,
                              .operation = BlockOperation::write,
                              .count = 1000,
                              .delay = milliseconds(50)});
    std::vector<std::unique_ptr<Request>> writes;
    for (std::uint64_t i = 0; i < GuestPath::unfinished_max + 1; ++i) {
        writes.push_back(std::make_unique<Request>(BlockOperation::write, i, 1));
    }
    const sys::Moment start = world.time.now();
    for (auto& write : writes) {
        EXPECT_TRUE(write->run(world));
    }
    EXPECT_GE(world.time.now() - start, milliseconds(50)); // The last one waited.
    EXPECT_LT(world.time.now() - start, milliseconds(100));
    world.run_to_end();
    EXPECT_EQ(world.report->outcome, MoveOutcome::moved);
}

TEST(MovingDevice, aio_bounds_what_is_submitted_together) {
    World world;
    ASSERT_TRUE(world.start({.scheme = Scheme::aio}).has_value());
    world.run_to(blocks / 2);
    world.source_faults->add({.fault = Fault::delay,
                              .operation = BlockOperation::write,
                              .count = 1000,
                              .delay = milliseconds(50)});
    std::vector<std::unique_ptr<Request>> writes;
    for (std::uint64_t i = 0; i < 2ULL * GuestPath::unfinished_max; ++i) {
        writes.push_back(std::make_unique<Request>(BlockOperation::write, i, 1));
    }
    const sys::Moment start = world.time.now();
    for (auto& write : writes) {
        world.device->submit(write->block);
    }
    world.device->kick();
    bool early = true;
    const auto later = GODWIT_MUST(world.time.create_alarm([&] { early = false; })); // Simulated.
    later->set(start + milliseconds(40));
    while (early) {
        ASSERT_TRUE(world.time.step());
    }
    EXPECT_EQ(std::ranges::count_if(writes, [](auto& write) { return write->outcome.has_value(); }),
              GuestPath::unfinished_max);
    world.run_to_end();
    EXPECT_EQ(world.report->outcome, MoveOutcome::moved);
    EXPECT_TRUE(
        std::ranges::all_of(writes, [](auto& write) { return write->outcome.has_value(); }));
}

TEST(MovingDevice, passes_without_an_end_turn_into_mirroring) {
    World world;
    ASSERT_TRUE(world.start({.scheme = Scheme::slr, .threshold_bytes = 0}).has_value());
    std::uint64_t writes = 0;
    while (!world.report.has_value()) {
        Request write(BlockOperation::write, writes++ * 7 % (blocks - 64), 64);
        EXPECT_TRUE(write.run(world));
        ASSERT_LT(writes, 100'000U);
    }
    EXPECT_EQ(world.report->outcome, MoveOutcome::moved);
    EXPECT_EQ(world.report->ended_as, Scheme::mirror);
    EXPECT_EQ(world.source.current.size(), world.destination.current.size());
}

TEST(MovingDevice, hot_blocks_wait_for_the_pause_and_are_copied_once) {
    std::array<std::uint64_t, 2> total{};
    for (const Scheme scheme : {Scheme::tiered, Scheme::slr}) {
        World world;
        ASSERT_TRUE(world.device->observe({.granule_bytes = 4096}).has_value());
        const auto write_hot = [&] {
            Request write(BlockOperation::write, 16, 8);
            EXPECT_TRUE(write.run(world));
        };
        for (int i = 0; i < 8; ++i) {
            write_hot();
        }
        ASSERT_TRUE(world
                        .start({.scheme = scheme,
                                .limit_bytes_per_second = 50'000'000,
                                .threshold_bytes = 0,
                                .granule_bytes = 4096})
                        .has_value());
        while (!world.report.has_value()) {
            write_hot();
            for (int i = 0; i < 10; ++i) {
                Request read(BlockOperation::read, 0, 1);
                read.run(world);
            }
        }
        total[scheme == Scheme::slr ? 1 : 0] = world.report->counters.destination.total();
        if (scheme == Scheme::tiered) {
            EXPECT_EQ(world.report->counters.last_pass_bytes, 8U * block_bytes);
            EXPECT_GT(world.report->histogram[8], 0U);
            EXPECT_EQ(world.report->counters.destination.first_copy, disk_bytes);
        }
    }
    EXPECT_LT(total[0], total[1]);
}

TEST(MovingDevice, lr_whose_destination_dies_is_stranded_until_it_lives_again) {
    World world;
    ASSERT_TRUE(world.start({.scheme = Scheme::lr}).has_value());
    world.run_to(blocks / 2);
    Request write(BlockOperation::write, 5, 1);
    EXPECT_TRUE(write.run(world));
    world.destination_faults->add({.count = 1'000'000});
    world.run_to_end();
    EXPECT_EQ(world.report->outcome, MoveOutcome::stranded);
    EXPECT_TRUE(world.device->moving());
    world.destination_faults->clear_rules();
    world.report.reset();
    ASSERT_TRUE(world.device->cancel().has_value());
    world.run_to_end();
    EXPECT_EQ(world.report->outcome, MoveOutcome::cancelled);
    EXPECT_EQ(first_byte_of(world.source, 5), written);
}

TEST(MovingDevice, source_that_refuses_a_mirrored_write_does_not_lose_it_but_flush_says_so) {
    World world;
    ASSERT_TRUE(world.start({.scheme = Scheme::mirror}).has_value());
    world.run_to(blocks / 2);
    world.source_faults->add({.operation = BlockOperation::write});
    Request write(BlockOperation::write, 5, 1);
    Request read(BlockOperation::read, 5, 1);
    Request flush(BlockOperation::flush, 0, 0);
    EXPECT_TRUE(write.run(world));
    EXPECT_TRUE(read.run(world));
    EXPECT_EQ(read.memory[0], written);
    EXPECT_FALSE(flush.run(world));
    world.run_to_end();
    EXPECT_EQ(world.report->outcome, MoveOutcome::moved);
    EXPECT_EQ(world.report->counters.source_failures, 1U);
    EXPECT_EQ(first_byte_of(world.destination, 5), written);
}

TEST(MovingDevice, requests_are_held_only_from_the_pause_to_the_switch) {
    World world;
    std::optional<std::move_only_function<void(Status)>> answer;
    MoveHooks hooks;
    hooks.commit = [&](std::move_only_function<void(Status)> give) { answer = std::move(give); };
    hooks.finished = [&](const MoveReport& result) { world.report = result; };
    ASSERT_TRUE(
        world.device
            ->start(world.faulty(world.destination), {.scheme = Scheme::mirror}, std::move(hooks))
            .has_value());
    while (!answer.has_value()) {
        ASSERT_TRUE(world.time.step());
    }
    EXPECT_EQ(world.device->progress()->phase, MovePhase::committing);
    EXPECT_EQ(world.device->cancel().error().code(), ErrorCode::conflict);
    Request write(BlockOperation::write, 5, 1);
    write.submit(world);
    EXPECT_EQ(world.device->in_flight(), 1U);
    (*answer)(ok());
    world.run_to_end();
    while (!write.outcome.has_value()) {
        ASSERT_TRUE(world.time.step());
    }
    EXPECT_EQ(first_byte_of(world.destination, 5), written);
    EXPECT_NE(first_byte_of(world.source, 5), written);
}

TEST(MovingDevice, tracked_move_changes_to_aio_when_its_pass_is_over) {
    World world;
    ASSERT_TRUE(world.start({.scheme = Scheme::slr, .threshold_bytes = 0}).has_value());
    world.run_to(blocks / 2);
    Request write(BlockOperation::write, 5, 1);
    EXPECT_TRUE(write.run(world));
    ASSERT_TRUE(world.device->change_scheme(Scheme::aio).has_value());
    EXPECT_EQ(world.device->change_scheme(Scheme::lr).error().code(), ErrorCode::conflict);
    world.run_to_end();
    EXPECT_EQ(world.report->ended_as, Scheme::aio);
    EXPECT_EQ(world.report->counters.destination.redundant, block_bytes);
    EXPECT_EQ(first_byte_of(world.destination, 5), written);
    EXPECT_EQ(world.device->change_scheme(Scheme::mirror).error().code(), ErrorCode::not_found);
}

// --- what is refused ---

TEST(MovingDevice, destination_that_cannot_hold_the_disk_is_refused) {
    World world;
    Medium small(disk_bytes / 2);
    const Status status = world.device->start(world.faulty(small), {}, {});
    ASSERT_FALSE(status.has_value());
    EXPECT_EQ(status.error().code(), ErrorCode::invalid_argument);
    Medium coarse(disk_bytes);
    const Status blocks_differ = world.device->start(
        std::make_unique<SimulatedDisk>(
            coarse, world.time, testing::SimulatedDiskOptions{.block_bytes = 4096}),
        {},
        {});
    ASSERT_FALSE(blocks_differ.has_value());
    EXPECT_EQ(blocks_differ.error().code(), ErrorCode::unsupported);
    Request write(BlockOperation::write, 5, 1);
    EXPECT_TRUE(write.run(world));
}

TEST(MovingDevice, more_passes_than_are_remembered_are_refused) {
    World world;
    const Status status = world.start({.passes_max = 129});
    ASSERT_FALSE(status.has_value());
    EXPECT_EQ(status.error().code(), ErrorCode::invalid_argument);
    EXPECT_TRUE(world.start({.passes_max = 128}).has_value());
}

TEST(MovingDevice, one_move_at_a_time_and_none_to_cancel) {
    World world;
    EXPECT_EQ(world.device->cancel().error().code(), ErrorCode::not_found);
    ASSERT_TRUE(world.start({}).has_value());
    EXPECT_EQ(world.start({}).error().code(), ErrorCode::conflict);
    world.destination_faults = nullptr; // Of the second, which is gone.
    world.run_to_end();
    EXPECT_EQ(world.device->cancel().error().code(), ErrorCode::conflict);
}

TEST(MovingDevice, bad_request_during_a_move_fails_through_done) {
    World world;
    ASSERT_TRUE(world.start({.scheme = Scheme::lr}).has_value());
    world.run_to(blocks / 2);
    Request beyond(BlockOperation::write, blocks, 1);
    EXPECT_FALSE(beyond.run(world));
    EXPECT_EQ(beyond.outcome->error().code(), ErrorCode::invalid_argument);
    world.run_to_end();
    EXPECT_EQ(world.report->outcome, MoveOutcome::moved);
}

TEST(MovingDevice, device_that_goes_during_a_move_takes_it_along) {
    World world;
    ASSERT_TRUE(world.start({.scheme = Scheme::aio}).has_value());
    world.run_to(blocks / 2);
    world.device.reset();
    while (world.time.step()) {
    }
    EXPECT_FALSE(world.report.has_value());
}

TEST(MovingDevice, limit_slows_the_copier_and_progress_tells_the_rate) {
    World world;
    ASSERT_TRUE(
        world.start({.scheme = Scheme::slr, .limit_bytes_per_second = 262'144}).has_value());
    const sys::Moment start = world.time.now();
    world.run_to(blocks / 2);
    const auto progress = world.device->progress();
    ASSERT_TRUE(progress.has_value());
    EXPECT_NEAR(static_cast<double>(progress->copy_bytes_per_second), 262'144.0, 40'000.0);
    ASSERT_TRUE(progress->remaining.has_value());
    EXPECT_NEAR(std::chrono::duration<double>(*progress->remaining).count(), 0.5, 0.1);
    world.run_to_end();
    EXPECT_NEAR(std::chrono::duration<double>(world.time.now() - start).count(), 1.0, 0.1);
}

TEST(MovingDevice, limit_that_is_raised_or_lifted_counts_at_once) {
    for (const std::uint64_t limit : {std::uint64_t{0}, std::uint64_t{100} << 20U}) {
        World world;
        ASSERT_TRUE(
            world.start({.scheme = Scheme::slr, .limit_bytes_per_second = 1024}).has_value());
        world.run_to(1);
        const sys::Moment start = world.time.now();
        world.device->set_limit(limit);
        world.run_to_end();
        EXPECT_LT(world.time.now() - start, milliseconds(100));
    }
}

TEST(MovingDevice, limits_set_again_and_again_let_nothing_slip_through) {
    World world;
    ASSERT_TRUE(world.start({.scheme = Scheme::slr, .limit_bytes_per_second = 1024}).has_value());
    world.run_to(1);
    for (std::uint64_t i = 0; i < 50; ++i) {
        world.device->set_limit(1024 + i % 2);
        Request read(BlockOperation::read, 0, 1);
        EXPECT_TRUE(read.run(world));
    }
    EXPECT_LE(world.device->progress()->cursor_bytes, 2U * 16U * block_bytes);
}

} // namespace
} // namespace godwit::block
