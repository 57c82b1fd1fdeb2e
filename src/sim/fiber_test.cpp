#include "sim/fiber.h"

namespace godwit::sim {
namespace {

TEST(Fiber, runs_until_it_suspends_and_goes_on_there) {
    std::string order;
    Fiber* self = nullptr;
    Fiber fiber([&] {
        order += "a";
        self->suspend();
        order += "b";
    });
    self = &fiber;
    fiber.resume();
    order += "-";
    EXPECT_FALSE(fiber.finished());
    fiber.resume();
    EXPECT_TRUE(fiber.finished());
    EXPECT_EQ(order, "a-b");
}

TEST(Fiber, never_resumed_never_runs) {
    bool ran = false;
    {
        const Fiber fiber([&] { ran = true; });
    }
    EXPECT_FALSE(ran);
}

} // namespace
} // namespace godwit::sim
