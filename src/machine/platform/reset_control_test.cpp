#include "machine/platform/reset_control.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace godwit::machine::platform {
namespace {

class Around final : public bus::BusDevice {
  public:
    void read(std::uint64_t, std::span<std::byte> out) override {
        std::fill(out.begin(), out.end(), std::byte{0x11});
    }
    void write(std::uint64_t, std::span<const std::byte>) override { ++writes; }
    int writes = 0;
};

class ResetControlTest : public ::testing::Test {
  protected:
    void write_register(std::uint8_t value) {
        const std::byte byte{value};
        reset_->write(1, std::span(&byte, 1));
    }
    std::vector<StopReason> stops_;
    StopSink sink_ = [this](StopReason reason, std::string) { stops_.push_back(reason); };
    Around around_;
    std::unique_ptr<ResetControl> reset_ =
        ResetControl::create({.stop = sink_, .around = &around_});
};

TEST_F(ResetControlTest, value_six_reboots) {
    write_register(0x02);
    EXPECT_TRUE(stops_.empty());
    write_register(0x06);
    EXPECT_EQ(stops_, std::vector{StopReason::rebooted});
}

TEST_F(ResetControlTest, wide_and_neighbouring_accesses_reach_the_register_around) {
    const std::array<std::byte, 4> wide{std::byte{6}, std::byte{6}};
    reset_->write(0, wide);
    reset_->write(2, std::span(wide).first(1));
    EXPECT_EQ(around_.writes, 2);
    EXPECT_TRUE(stops_.empty());
    std::array<std::byte, 4> out{};
    reset_->read(0, out);
    EXPECT_EQ(out[0], std::byte{0x11});
}

TEST_F(ResetControlTest, restored_register_saves_the_same_bytes) {
    write_register(0x02);
    const auto saved = std::get<state::Section>(*reset_->save());
    auto restored = ResetControl::restore({.stop = sink_}, saved);
    ASSERT_TRUE(restored.has_value());
    EXPECT_EQ(std::get<state::Section>(*(*restored)->save()).payload, saved.payload);
}

TEST(ResetPulse, only_its_command_reboots_and_status_is_ready) {
    std::vector<StopReason> stops;
    ResetPulse pulse([&stops](StopReason reason, std::string) { stops.push_back(reason); });
    const std::array commands{std::byte{0x20}, std::byte{0xFE}};
    pulse.write(0, std::span(commands).first(1));
    EXPECT_TRUE(stops.empty());
    pulse.write(0, std::span(commands).last(1));
    EXPECT_EQ(stops, std::vector{StopReason::rebooted});
    std::array<std::byte, 1> status{std::byte{0xFF}};
    pulse.read(0, status);
    EXPECT_EQ(status[0], std::byte{0});
}

} // namespace
} // namespace godwit::machine::platform
