#include "block/decorate/fault_device.h"
#include "block/decorate/throttle_device.h"
#include "block/decorate/tracking_device.h"
#include "block/testing/perform.h"
#include "block/testing/simulated_disk.h"

#include <array>
#include <cerrno>

namespace godwit::block {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using testing::Medium;
using Request = testing::SingleRequest;
using testing::SimulatedDisk;
using testing::SimulatedTime;

constexpr std::uint64_t disk_bytes = 1U << 20U;

struct World {
    SimulatedTime time{1};
    Medium medium{disk_bytes};

    std::unique_ptr<BlockDevice> disk() {
        return std::make_unique<SimulatedDisk>(
            medium,
            time,
            testing::SimulatedDiskOptions{.latency_min = sys::Nanoseconds(1),
                                          .latency_max = sys::Nanoseconds(1)});
    }
    /// How long it takes until `request` is done.
    sys::Nanoseconds run(BlockDevice& device, Request& request) {
        const sys::Moment start = time.now();
        device.submit(request.block);
        device.kick();
        wait(request);
        return time.now() - start;
    }
    void wait(const Request& request) {
        while (!request.outcome.has_value()) {
            GODWIT_ASSERT(time.step());
        }
    }
};

std::unique_ptr<ThrottleDevice> throttled(World& world, DeviceProfile profile) {
    profile.name = "test";
    return GODWIT_MUST( // Simulated alarms.
        ThrottleDevice::create(world.disk(), world.time, std::move(profile)));
}

TEST(ThrottleDevice, bandwidth_bounds_transfers_one_after_the_other) {
    World world;
    const auto device = throttled(world, {.write = {.bytes_per_second = 1'000'000}});
    Request first(BlockOperation::write, 0, 100'352);
    Request second(BlockOperation::write, 100'352, 100'352);
    device->submit(first.block);
    const sys::Nanoseconds took = world.run(*device, second);
    EXPECT_TRUE(first.outcome.has_value());
    EXPECT_GE(took, milliseconds(200));
    EXPECT_LT(took, milliseconds(202));
}

TEST(ThrottleDevice, latency_is_shared_by_requests_on_their_way) {
    World world;
    const auto device = throttled(world, {.read = {.latency = milliseconds(10)}});
    Request first(BlockOperation::read, 0, 512);
    Request second(BlockOperation::read, 4096, 512);
    device->submit(first.block);
    const sys::Nanoseconds took = world.run(*device, second);
    EXPECT_TRUE(first.outcome.has_value());
    EXPECT_GE(took, milliseconds(10));
    EXPECT_LT(took, milliseconds(11));
}

TEST(ThrottleDevice, seek_costs_only_where_the_place_changes) {
    World world;
    const auto device = throttled(world, {.read = {.seek = milliseconds(50)}});
    Request first(BlockOperation::read, 8192, 512);
    Request follows(BlockOperation::read, 8704, 512);
    Request elsewhere(BlockOperation::read, 0, 512);
    EXPECT_GE(world.run(*device, first), milliseconds(50));
    EXPECT_LT(world.run(*device, follows), milliseconds(1));
    EXPECT_GE(world.run(*device, elsewhere), milliseconds(50));
}

TEST(ThrottleDevice, flush_takes_its_time_and_errors_pass) {
    World world;
    auto faults = GODWIT_MUST(FaultDevice::create(world.disk(), world.time)); // Simulated alarms.
    faults->add({.operation = BlockOperation::flush});
    const auto device = GODWIT_MUST(ThrottleDevice::create( // Simulated alarms.
        std::move(faults),
        world.time,
        {.name = "test", .flush = milliseconds(5)}));
    Request flush(BlockOperation::flush);
    EXPECT_GE(world.run(*device, flush), milliseconds(5));
    EXPECT_FALSE(flush.outcome->has_value());
}

TEST(DeviceProfile, every_key_is_read) {
    const auto profile = parse_profile("# a comment\n name slow one # and another\r\n"
                                       "read_bytes_per_second 1000\nwrite_seek_us 7\n"
                                       "flush_us 3\nwear_thousandths 1500\n\n");
    ASSERT_TRUE(profile.has_value());
    EXPECT_EQ(profile->name, "slow one");
    EXPECT_EQ(profile->read.bytes_per_second, 1000U);
    EXPECT_EQ(profile->write.seek, microseconds(7));
    EXPECT_EQ(profile->flush, microseconds(3));
    EXPECT_EQ(profile->wear_thousandths, 1500U);
}

TEST(DeviceProfile, wrong_lines_are_refused_with_their_number) {
    for (const char* text : {"name x\nspeed 7\n",
                             "name x\nflush_us -1\n",
                             "name x\nflush_us 1 2\n",
                             "name x\nflush_us\n",
                             "name x\nread_bytes_per_second 99999999999999999999\n"}) {
        const auto profile = parse_profile(text);
        ASSERT_FALSE(profile.has_value()) << text;
        EXPECT_NE(profile.error().to_string().find("line 2"), std::string::npos);
    }
    EXPECT_FALSE(parse_profile("flush_us 1\n").has_value());
}

struct Faulty : World {
    std::unique_ptr<FaultDevice> device;
    Faulty() : device(GODWIT_MUST(FaultDevice::create(disk(), time))) {} // Simulated alarms.
};

TEST(FaultDevice, fails_the_chosen_request_only) {
    Faulty world;
    world.device->add({.operation = BlockOperation::flush, .skip = 1});
    std::array<Request, 3> flushes{Request(BlockOperation::flush),
                                   Request(BlockOperation::flush),
                                   Request(BlockOperation::flush)};
    for (Request& flush : flushes) {
        world.run(*world.device, flush);
    }
    EXPECT_TRUE(flushes[0].outcome->has_value());
    ASSERT_FALSE(flushes[1].outcome->has_value());
    EXPECT_EQ(flushes[1].outcome->error().os_errno(), EIO);
    EXPECT_TRUE(flushes[2].outcome->has_value());
    EXPECT_EQ(world.device->faults(), 1U);
}

TEST(FaultDevice, fault_does_not_come_from_within_submit) {
    Faulty world;
    world.device->add({});
    Request write(BlockOperation::write, 0, 512);
    world.device->submit(write.block);
    EXPECT_FALSE(write.outcome.has_value());
    EXPECT_EQ(world.device->in_flight(), 1U);
    world.wait(write);
    EXPECT_EQ(world.medium.current[0], std::byte{0});
}

TEST(FaultDevice, rule_with_a_range_leaves_other_places_alone) {
    Faulty world;
    world.device->add({.range = sys::FileRange{.offset = 4096, .bytes = 512}, .count = 9});
    Request before(BlockOperation::write, 3584, 512);
    Request across(BlockOperation::write, 3584, 1024);
    world.run(*world.device, before);
    world.run(*world.device, across);
    EXPECT_TRUE(before.outcome->has_value());
    EXPECT_FALSE(across.outcome->has_value());
}

TEST(FaultDevice, torn_write_reaches_the_disk_in_part) {
    Faulty world;
    world.device->add({.fault = Fault::tear});
    Request write(BlockOperation::write, 0, 2048);
    world.run(*world.device, write);
    EXPECT_FALSE(write.outcome->has_value());
    EXPECT_EQ(world.medium.current[1023], std::byte{0x5a});
    EXPECT_EQ(world.medium.current[1024], std::byte{0});
}

TEST(FaultDevice, delayed_request_is_done_later) {
    Faulty world;
    world.device->add({.fault = Fault::delay, .delay = milliseconds(20)});
    Request read(BlockOperation::read, 0, 512);
    EXPECT_GE(world.run(*world.device, read), milliseconds(20));
    EXPECT_TRUE(read.outcome->has_value());
}

TEST(FaultDevice, held_request_finishes_after_release) {
    Faulty world;
    world.device->add({.fault = Fault::hold});
    Request held(BlockOperation::flush);
    Request other(BlockOperation::flush);
    world.device->submit(held.block);
    world.run(*world.device, other);
    EXPECT_FALSE(held.outcome.has_value());
    EXPECT_EQ(world.device->in_flight(), 1U);
    world.device->release_held();
    world.wait(held);
    EXPECT_TRUE(held.outcome->has_value());
}

TEST(TrackingDevice, changes_are_marked_when_done_also_failed_ones) {
    World world;
    auto faults = GODWIT_MUST(FaultDevice::create(world.disk(), world.time)); // Simulated alarms.
    faults->add({.fault = Fault::tear});
    TrackingDevice device(std::move(faults), 4096);
    Request torn(BlockOperation::write, 4096, 8192);
    Request zeroes(BlockOperation::write_zeroes, 40'960, 512);
    Request read(BlockOperation::read, 0, 512);
    device.submit(torn.block);
    EXPECT_TRUE(device.changed().empty());
    world.wait(torn);
    EXPECT_EQ(device.changed().next_run({.first = 0, .end = 256}), (BlockRange{1, 3}));
    world.run(device, zeroes);
    world.run(device, read);
    EXPECT_TRUE(device.changed().contains(10));
    EXPECT_EQ(device.take_changed().count(), 3U);
    EXPECT_TRUE(device.changed().empty());
}

TEST(TrackingDevice, refused_change_beyond_the_end_marks_nothing) {
    World world;
    TrackingDevice device(world.disk(), 4096);
    Request beyond(BlockOperation::write_zeroes, ~std::uint64_t{511}, 512);
    world.run(device, beyond);
    EXPECT_FALSE(beyond.outcome->has_value());
    EXPECT_TRUE(device.changed().empty());
}

TEST(SimulatedDisk, flushed_write_survives_a_power_cut_and_some_other_does_not) {
    std::uint64_t lost = 0;
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        SimulatedTime time(seed);
        Medium medium(disk_bytes);
        SimulatedDisk device(medium, time, {});
        Request flushed(BlockOperation::write, 0, 512);
        Request flush(BlockOperation::flush);
        Request volatile_write(BlockOperation::write, 512, 512);
        for (Request* request : {&flushed, &flush, &volatile_write}) {
            device.submit(request->block);
            while (!request->outcome.has_value()) {
                ASSERT_TRUE(time.step());
            }
        }
        device.cut_power();
        EXPECT_EQ(medium.current[0], std::byte{0x5a});
        lost += medium.current[512] == std::byte{0} ? 1U : 0U;
    }
    EXPECT_GT(lost, 0U);
    EXPECT_LT(lost, 20U);
}

} // namespace
} // namespace godwit::block
