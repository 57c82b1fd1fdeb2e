#include "block/testing/moving_world.h"

namespace godwit::block {
namespace {

using testing::first_byte_of;
using testing::written;
using Request = testing::MovingRequest;
using World = testing::MovingWorld;

TEST(MoverLife, answer_to_the_commit_of_a_disk_that_is_gone_is_dropped) {
    World world;
    std::optional<std::move_only_function<void(Status)>> answer;
    MoveHooks hooks;
    hooks.commit = [&](std::move_only_function<void(Status)> give) { answer = std::move(give); };
    ASSERT_TRUE(world.start({.scheme = Scheme::mirror}, std::move(hooks)).has_value());
    while (!answer.has_value()) {
        ASSERT_TRUE(world.time.step());
    }
    world.device.reset();
    (*answer)(ok());
    EXPECT_FALSE(world.time.step());
    EXPECT_FALSE(world.report.has_value());
}

TEST(MoverLife, next_move_may_begin_when_the_end_of_one_is_told) {
    World world;
    const std::string first_words(100, 'm'); // What the hook owns has to outlive its call.
    std::string told;
    MoveHooks hooks;
    hooks.finished = [&world, &told, words = first_words](const MoveReport& report) {
        auto back = world.device->take_retired();
        ASSERT_NE(back, nullptr);
        ASSERT_TRUE(
            world.device
                ->start(std::move(back),
                        {.scheme = Scheme::slr},
                        {.commit = {},
                         .finished = [&world](const MoveReport& second) { world.report = second; }})
                .has_value());
        told = words + std::string(name_of(report.ended_as));
    };
    ASSERT_TRUE(
        world.device
            ->start(world.faulty(world.destination), {.scheme = Scheme::lr}, std::move(hooks))
            .has_value());
    Request write(BlockOperation::write, 5, 1);
    EXPECT_TRUE(write.run(world));
    world.run_to_end();
    EXPECT_EQ(told, first_words + "lr");
    EXPECT_EQ(world.report->outcome, MoveOutcome::moved);
    EXPECT_EQ(first_byte_of(world.source, 5), written);
}

} // namespace
} // namespace godwit::block
