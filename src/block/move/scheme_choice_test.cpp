#include "block/move/scheme_choice.h"
#include "block/testing/perform.h"
#include "block/testing/simulated_disk.h"

#include <gtest/gtest.h>

#include <deque>
#include <optional>

namespace godwit::block {
namespace {

using testing::SimulatedTime;
constexpr std::uint64_t disk_bytes = 4 << 20;

struct World {
    SimulatedTime time{1};
    testing::Medium here{disk_bytes};
    testing::Medium there{disk_bytes};
    std::unique_ptr<MovingDevice> disk;
    std::unique_ptr<BlockDevice> destination;
    std::optional<SchemeChooser> chooser;
    std::optional<Result<SchemeFindings>> answer;
    std::deque<testing::SingleRequest> requests;

    World() : disk(GODWIT_MUST(MovingDevice::create(on(here), time))), destination(on(there)) {
        chooser.emplace(
            SchemeChooser::Args{.disk = *disk, .destination = *destination, .clock = time});
        EXPECT_TRUE(
            chooser
                ->start([this](Result<SchemeFindings> found) { answer.emplace(std::move(found)); })
                .has_value());
    }
    std::unique_ptr<BlockDevice> on(testing::Medium& medium) {
        return std::make_unique<testing::SimulatedDisk>(
            medium, time, testing::SimulatedDiskOptions{});
    }
    void guest_reads(std::uint64_t count) {
        for (std::uint64_t i = 0; i < count; ++i) {
            requests.emplace_back(BlockOperation::read, i * 512 % disk_bytes, 512);
            disk->submit(requests.back().block);
            disk->kick();
        }
    }
    /// How long the guest was watched.
    sys::Nanoseconds watched() {
        const sys::Moment begun = time.now();
        while (chooser->phase() == "watching") {
            GODWIT_ASSERT(time.step());
        }
        return time.now() - begun;
    }
    void run_to_answer() {
        while (!answer.has_value()) {
            GODWIT_ASSERT(time.step());
        }
    }
};

TEST(SchemeChooser, watches_a_busy_guest_no_longer_than_it_has_to) {
    World world;
    world.guest_reads(SchemeChooser::enough_requests);
    EXPECT_LT(world.watched(), 2 * SchemeChooser::look_period);
    world.run_to_answer();
    ASSERT_TRUE(world.answer->has_value());
    EXPECT_GT((*world.answer)->situation.workload.reads,
              static_cast<double>(SchemeChooser::enough_requests));
}

TEST(SchemeChooser, watches_a_guest_that_does_little_for_all_of_the_time) {
    World world;
    world.guest_reads(SchemeChooser::enough_requests - 1);
    const sys::Nanoseconds watched = world.watched();
    EXPECT_GE(watched, SchemeChooser::watching_time);
    EXPECT_LT(watched, SchemeChooser::watching_time + SchemeChooser::look_period);
    world.run_to_answer();
    EXPECT_TRUE(world.answer->has_value());
}

} // namespace
} // namespace godwit::block
