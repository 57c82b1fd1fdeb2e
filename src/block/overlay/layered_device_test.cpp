#include "block/decorate/fault_device.h"
#include "block/overlay/layered_device.h"
#include "block/testing/perform.h"
#include "block/testing/simulated_disk.h"

namespace godwit::block {
namespace {

using Request = testing::SingleRequest;
using testing::Medium;
using testing::SimulatedDisk;
using testing::SimulatedTime;

struct World {
    SimulatedTime time{1};
    Medium medium{std::uint64_t{1} << 20U};
    std::unique_ptr<LayeredDevice> disk;
    std::uint32_t changes = 0;
    std::optional<Status> changed;

    World() {
        auto below = std::make_unique<SimulatedDisk>(medium, time, testing::SimulatedDiskOptions{});
        auto faults = GODWIT_MUST(FaultDevice::create(std::move(below), time)); // Simulated alarms.
        disk = GODWIT_MUST(LayeredDevice::create(std::move(faults), time, {})); // Simulated alarms.
    }
    /// The layers go, and a new disk over the same medium comes.
    void change() {
        const Status begun = disk->change(
            [this](std::unique_ptr<BlockDevice>& layers) -> Status {
                layers.reset();
                ++changes;
                layers = std::make_unique<SimulatedDisk>(
                    medium, time, testing::SimulatedDiskOptions{.name = "new layers"});
                return ok();
            },
            [this](Status status) { changed.emplace(std::move(status)); });
        GODWIT_ASSERT(begun.has_value());
    }
};

TEST(LayeredDevice, old_layers_may_go_with_the_change) {
    World world;
    Request write(BlockOperation::write, 0, 4096);
    world.disk->submit(write.block);
    world.change();
    Request held(BlockOperation::read, 0, 4096);
    world.disk->submit(held.block);
    while (!held.outcome.has_value()) {
        ASSERT_TRUE(world.time.step());
    }
    EXPECT_TRUE(world.changed.has_value() && world.changed->has_value());
    EXPECT_EQ(held.memory, write.memory);
    EXPECT_EQ(world.disk->description(), "new layers");
    EXPECT_EQ(world.medium.unsynced.size(), 0U);
}

TEST(LayeredDevice, change_from_a_completion_flushes_and_changes_once) {
    World world;
    Request write(BlockOperation::write, 0, 4096);
    struct Chain {
        World* world;
        bool done = false;
    } chain{.world = &world};
    write.block.owner = &chain;
    write.block.done = [](BlockRequest& request, Status) noexcept {
        auto& of = *static_cast<Chain*>(request.owner);
        of.done = true;
        of.world->change();
    };
    world.disk->submit(write.block);
    while (world.time.step()) {
    }
    EXPECT_TRUE(chain.done);
    EXPECT_EQ(world.changes, 1U);
    EXPECT_TRUE(world.changed.has_value() && world.changed->has_value());
}

TEST(LayeredDevice, change_ends_without_one_if_the_flush_fails) {
    World world;
    static_cast<FaultDevice&>(world.disk->layers()).add({.operation = BlockOperation::flush});
    world.change();
    while (world.time.step()) {
    }
    ASSERT_TRUE(world.changed.has_value());
    EXPECT_FALSE(world.changed->has_value());
    EXPECT_EQ(world.changes, 0U);
    world.change(); // May be asked for again.
    while (world.time.step()) {
    }
    EXPECT_EQ(world.changes, 1U);
}

} // namespace
} // namespace godwit::block
