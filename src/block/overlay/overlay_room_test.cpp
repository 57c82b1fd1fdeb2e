// Deltas without room: who waits, who is given back, and what ends that.
#include "block/decorate/fault_device.h"
#include "block/overlay/layered_device.h"
#include "block/testing/overlay_world.h"
#include "block/testing/perform.h"

#include <cerrno>

namespace godwit::block {
namespace {

using Request = testing::SingleRequest;
using testing::SimulatedTime;
constexpr std::uint32_t cluster = testing::overlay_cluster_bytes;
constexpr std::uint64_t disk_bytes = 512 * std::uint64_t{testing::overlay_block_bytes};

/// A delta below a FaultDevice, over a base below another.
struct World {
    SimulatedTime time{1};
    testing::Medium base{disk_bytes};
    testing::Medium medium{100 * cluster};
    std::vector<DeltaPressure> pressures;
    FaultDevice* base_faults = nullptr;
    FaultDevice* delta_faults = nullptr;
    std::unique_ptr<OverlayDevice> device;

    explicit World(std::uint64_t slots) : medium((slots + 60) * cluster) {
        testing::MediumStorage storage(medium);
        GODWIT_MUST(create_delta(storage, testing::delta_options_of(disk_bytes))); // Room.
        DeltaState state = GODWIT_MUST(open_delta(storage, 3));                    // Ours.
        while (state.header.slots > slots) { // As if there were no more.
            --state.header.slots;
        }
        auto below_base = faults(base);
        auto below_delta = faults(medium);
        base_faults = below_base.get();
        delta_faults = below_delta.get();
        device = GODWIT_MUST(OverlayDevice::create( // Sizes fit; simulated alarms.
            std::move(below_base),
            std::move(below_delta),
            std::move(state),
            time,
            {},
            {.pressure = [this](DeltaPressure now) { pressures.push_back(now); }}));
    }
    std::unique_ptr<FaultDevice> faults(testing::Medium& below) {
        return GODWIT_MUST(FaultDevice::create( // Simulated alarms.
            std::make_unique<testing::SimulatedDisk>(below, time, testing::SimulatedDiskOptions{}),
            time));
    }
    void until(const std::optional<Status>& outcome) {
        while (!outcome.has_value()) {
            GODWIT_ASSERT(time.step());
        }
    }
    void rest() {
        while (time.step()) {
        }
    }
    void fill(std::uint64_t slots) {
        for (std::uint64_t i = 0; i < slots; ++i) {
            Request write(BlockOperation::write, i * cluster, cluster);
            device->submit(write.block);
            device->kick();
            until(write.outcome);
        }
    }
};

TEST(OverlayRoom, full_delta_gives_back_what_waits_and_takes_it_again) {
    World world(16);
    world.fill(16);
    Request write(BlockOperation::write, 20ULL * cluster, cluster);
    world.device->submit(write.block);
    world.rest();
    EXPECT_FALSE(write.outcome.has_value());
    world.device->set_patience(Patience::gives_back);
    world.rest();
    ASSERT_TRUE(write.outcome.has_value());
    EXPECT_EQ(write.outcome->error().code(), ErrorCode::cancelled);
    EXPECT_EQ(world.device->in_flight(), 0U);
    Request second(BlockOperation::write, 20ULL * cluster, cluster);
    world.device->submit(second.block); // Comes back as well, from the loop.
    EXPECT_FALSE(second.outcome.has_value());
    world.rest();
    EXPECT_TRUE(second.outcome.has_value());
    world.device->set_patience(Patience::waits);
    Request third(BlockOperation::write, 20ULL * cluster, cluster);
    world.device->submit(third.block);
    world.rest();
    EXPECT_FALSE(third.outcome.has_value());
    std::optional<Status> folded;
    GODWIT_MUST(world.device->fold([&](Status status) { folded.emplace(std::move(status)); }));
    world.until(folded);
    world.until(third.outcome);
    EXPECT_TRUE(third.outcome->has_value());
    EXPECT_EQ(world.pressures, (std::vector{DeltaPressure::high, DeltaPressure::full}));
}

TEST(OverlayRoom, delta_on_full_storage_is_full_until_there_is_space) {
    World world(40);
    world.delta_faults->add({.operation = BlockOperation::write, .count = 5, .os_errno = ENOSPC});
    Request write(BlockOperation::write, 3ULL * cluster, cluster, std::byte{0x33});
    const sys::Moment begun = world.time.now();
    world.device->submit(write.block);
    world.until(write.outcome);
    EXPECT_TRUE(write.outcome->has_value());
    EXPECT_GE(world.time.now() - begun, std::chrono::seconds(2)); // Five attempts in vain.
    // Told once, not at each attempt; and over when it stays over.
    EXPECT_EQ(world.pressures, (std::vector{DeltaPressure::full}));
    world.rest();
    EXPECT_EQ(world.pressures, (std::vector{DeltaPressure::full, DeltaPressure::low}));
    EXPECT_EQ(world.device->status().slots_used, 1U);
    Request read(BlockOperation::read, 3ULL * cluster, cluster);
    world.device->submit(read.block);
    world.until(read.outcome);
    EXPECT_EQ(read.memory, write.memory);
}

TEST(OverlayRoom, last_space_for_a_small_write_is_not_told_as_space) {
    World world(40);
    world.delta_faults->add({.operation = BlockOperation::write, .os_errno = ENOSPC});
    world.delta_faults->add(
        {.operation = BlockOperation::write, .skip = 1, .count = 3, .os_errno = ENOSPC});
    Request large(BlockOperation::write, 3ULL * cluster, 4ULL * cluster, std::byte{0x33});
    Request small(BlockOperation::write, 20ULL * cluster, cluster);
    world.device->submit(large.block);
    world.device->submit(small.block);
    world.device->kick();
    world.until(small.outcome);
    world.until(large.outcome);
    EXPECT_TRUE(large.outcome->has_value());
    EXPECT_EQ(world.delta_faults->faults(), 4U);
    EXPECT_EQ(world.pressures, (std::vector{DeltaPressure::full}));
    world.rest();
    EXPECT_EQ(world.pressures, (std::vector{DeltaPressure::full, DeltaPressure::low}));
}

TEST(OverlayRoom, base_on_full_storage_ends_a_fold_and_the_delta_goes_on) {
    World world(40);
    world.fill(4);
    world.base_faults->add({.operation = BlockOperation::write, .count = 1000, .os_errno = ENOSPC});
    std::optional<Status> folded;
    GODWIT_MUST(world.device->fold([&](Status status) { folded.emplace(std::move(status)); }));
    Request write(BlockOperation::write, 30ULL * cluster, cluster); // To the base, at first.
    world.device->submit(write.block);
    world.until(folded);
    world.until(write.outcome);
    EXPECT_EQ(folded->error().os_errno(), ENOSPC);
    EXPECT_TRUE(write.outcome->has_value());
    EXPECT_FALSE(world.device->status().folding);
    EXPECT_EQ(world.device->status().clusters_mapped, 5U);
    world.base_faults->clear_rules();
    folded.reset();
    GODWIT_MUST(world.device->fold([&](Status status) { folded.emplace(std::move(status)); }));
    world.until(folded);
    EXPECT_TRUE(folded->has_value());
    EXPECT_EQ(world.device->status().clusters_mapped, 0U);
}

TEST(OverlayRoom, cancelled_fold_leaves_new_clusters_to_the_delta) {
    World world(120);
    world.fill(60);
    std::optional<Status> folded;
    EXPECT_EQ(world.device->cancel_fold(Error(ErrorCode::cancelled, "no")).error().code(),
              ErrorCode::not_found);
    GODWIT_MUST(world.device->fold([&](Status status) { folded.emplace(std::move(status)); }));
    GODWIT_MUST(world.device->cancel_fold(Error(ErrorCode::cancelled, "no"))); // It goes on.
    world.until(folded);
    EXPECT_EQ(folded->error().code(), ErrorCode::cancelled);
    const std::uint64_t written = world.base.written_bytes;
    Request write(BlockOperation::write, 63ULL * cluster, cluster);
    world.device->submit(write.block);
    world.until(write.outcome);
    EXPECT_EQ(world.base.written_bytes, written);
}

TEST(LayeredDevice, layers_change_over_a_full_delta) {
    World world(16);
    world.fill(16);
    const auto disk = GODWIT_MUST( // Simulated alarms.
        LayeredDevice::create(std::move(world.device), world.time, {}));
    Request write(BlockOperation::write, 20ULL * cluster, cluster);
    disk->submit(write.block);
    world.rest();
    EXPECT_FALSE(write.outcome.has_value());
    std::optional<Status> changed;
    std::unique_ptr<BlockDevice> old;
    testing::Medium other(disk_bytes);
    GODWIT_MUST(disk->change( // None goes on.
        [&](std::unique_ptr<BlockDevice>& layers) {
            old = std::exchange(layers, world.faults(other));
            return ok();
        },
        [&](Status status) { changed.emplace(std::move(status)); }));
    world.until(changed);
    world.until(write.outcome);
    EXPECT_TRUE(write.outcome->has_value());
    EXPECT_EQ(other.written_bytes, cluster);
}

TEST(LayeredDevice, change_that_fails_leaves_the_layers) {
    World world(16);
    const auto disk = GODWIT_MUST( // Simulated alarms.
        LayeredDevice::create(world.faults(world.base), world.time, {}));
    std::optional<Status> changed;
    GODWIT_MUST(disk->change( // None goes on.
        [](std::unique_ptr<BlockDevice>&) { return Status(Error(ErrorCode::io, "not noted")); },
        [&](Status status) { changed.emplace(std::move(status)); }));
    Request write(BlockOperation::write, 0, cluster);
    disk->submit(write.block);
    world.until(changed);
    world.until(write.outcome);
    EXPECT_FALSE(changed->has_value());
    EXPECT_TRUE(write.outcome->has_value());
}

TEST(LayeredDevice, first_request_opens_and_waits_until_that_succeeds) {
    World world(16);
    std::uint32_t attempts = 0;
    const auto disk = GODWIT_MUST(LayeredDevice::create( // Simulated alarms.
        world.faults(world.base),
        world.time,
        {.open = [&](std::unique_ptr<BlockDevice>&) -> Status {
             ++attempts;
             return attempts < 3 ? Status(Error(ErrorCode::io, "not yet")) : ok();
         },
         .tried = {}}));
    EXPECT_EQ(attempts, 0U);
    Request write(BlockOperation::write, 0, cluster);
    disk->submit(write.block);
    EXPECT_EQ(attempts, 0U); // From the loop.
    world.until(write.outcome);
    EXPECT_TRUE(write.outcome->has_value());
    EXPECT_EQ(attempts, 3U);
}

TEST(LayeredDevice, what_waits_for_an_opening_is_given_back) {
    World world(16);
    const auto disk = GODWIT_MUST(LayeredDevice::create( // Simulated alarms.
        world.faults(world.base),
        world.time,
        {.open =
             [](std::unique_ptr<BlockDevice>&) { return Status(Error(ErrorCode::io, "never")); },
         .tried = {}}));
    Request write(BlockOperation::write, 0, cluster);
    disk->submit(write.block);
    disk->set_patience(Patience::gives_back);
    world.until(write.outcome);
    EXPECT_EQ(write.outcome->error().code(), ErrorCode::cancelled);
    EXPECT_EQ(disk->in_flight(), 0U);
}

} // namespace
} // namespace godwit::block
