#include "machine/platform/fake_irq_line.h"
#include "machine/platform/rtc.h"

#include <gtest/gtest.h>

namespace godwit::machine::platform {
namespace {

class SetClock final : public sys::Clock {
  public:
    [[nodiscard]] sys::Moment now() const noexcept override { return {}; }
    [[nodiscard]] std::int64_t unix_nanoseconds() const noexcept override {
        return seconds * 1'000'000'000;
    }
    std::int64_t seconds = 0;
};

class RtcTest : public ::testing::Test {
  protected:
    // 2024-02-29 23:59:58 UTC, a Thursday.
    void SetUp() override {
        clock_.seconds = 1'709'251'198;
        rtc_ = Rtc::create(args());
    }
    Rtc::Args args() {
        return {.line = &line_, .clock = &clock_, .ticks_wanted = [this](bool wanted) {
                    wanted_ = wanted;
                }};
    }
    std::uint8_t get(std::uint8_t index) {
        put_port(0, index);
        std::byte byte{};
        rtc_->read(1, std::span(&byte, 1));
        return std::to_integer<std::uint8_t>(byte);
    }
    void set(std::uint8_t index, std::uint8_t value) {
        put_port(0, index);
        put_port(1, value);
    }
    void put_port(std::uint64_t offset, std::uint8_t value) {
        const std::byte byte{value};
        rtc_->write(offset, std::span(&byte, 1));
    }

    FakeIrqLine line_;
    SetClock clock_;
    bool wanted_ = false;
    std::unique_ptr<Rtc> rtc_;
};

TEST_F(RtcTest, time_is_the_hosts_in_bcd) {
    EXPECT_EQ(get(0), 0x58);
    EXPECT_EQ(get(2), 0x59);
    EXPECT_EQ(get(4), 0x23);
    EXPECT_EQ(get(6), 5);
    EXPECT_EQ(get(7), 0x29);
    EXPECT_EQ(get(8), 0x02);
    EXPECT_EQ(get(9), 0x24);
    EXPECT_EQ(get(0x32), 0x20);
    EXPECT_EQ(get(13), 0x80);
}

TEST_F(RtcTest, midnight_of_a_leap_day_rolls_over) {
    clock_.seconds += 2;
    EXPECT_EQ(get(7), 0x01);
    EXPECT_EQ(get(8), 0x03);
    EXPECT_EQ(get(4), 0x00);
}

TEST_F(RtcTest, binary_and_twelve_hour_forms) {
    set(11, 0x04);
    EXPECT_EQ(get(0), 58);
    EXPECT_EQ(get(4), 0x80 | 11);
}

TEST_F(RtcTest, guest_sets_the_clock_and_it_runs_on) {
    set(11, 0x82);
    set(9, 0x30);
    set(0, 0x00);
    set(11, 0x02);
    clock_.seconds += 1;
    EXPECT_EQ(get(0), 0x01);
    EXPECT_EQ(get(9), 0x30);
}

TEST_F(RtcTest, update_interrupt_comes_once_a_second_and_is_acknowledged) {
    set(11, 0x12);
    EXPECT_TRUE(wanted_);
    rtc_->advance();
    EXPECT_FALSE(line_.level);
    clock_.seconds += 1;
    rtc_->advance();
    EXPECT_TRUE(line_.level);
    EXPECT_EQ(get(12), 0x90);
    EXPECT_FALSE(line_.level);
    set(11, 0x02);
    EXPECT_FALSE(wanted_);
}

TEST_F(RtcTest, alarm_is_found_among_seconds_that_were_slept_through) {
    set(1, 0x00);
    set(3, 0x00);
    set(5, 0x00);
    set(11, 0x22);
    clock_.seconds += 10;
    rtc_->advance();
    EXPECT_TRUE(line_.level);
    EXPECT_EQ(get(12) & 0xA0, 0xA0);
}

TEST_F(RtcTest, alarm_of_another_time_stays_silent) {
    set(1, 0x00);
    set(3, 0x30);
    set(5, 0x12);
    set(11, 0x22);
    clock_.seconds += 100;
    rtc_->advance();
    EXPECT_FALSE(line_.level);
}

TEST_F(RtcTest, nvram_keeps_bytes) {
    set(0x40, 0xAB);
    EXPECT_EQ(get(0x40), 0xAB);
}

TEST_F(RtcTest, restored_clock_saves_the_same_bytes) {
    set(0x40, 0xAB);
    set(11, 0x32);
    clock_.seconds += 1;
    rtc_->advance();
    const auto saved = std::get<state::Section>(*rtc_->save());
    FakeIrqLine line;
    Rtc::Args other = args();
    other.line = &line;
    auto restored = Rtc::restore(std::move(other), saved);
    ASSERT_TRUE(restored.has_value());
    EXPECT_TRUE(line.level);
    EXPECT_EQ(std::get<state::Section>(*(*restored)->save()).payload, saved.payload);
}

TEST_F(RtcTest, state_of_wrong_size_is_refused) {
    state::Section section{.id = {.name = "rtc", .instance = 0},
                           .version = 1,
                           .required = true,
                           .payload = std::string("\x12\x02xx", 4)};
    EXPECT_EQ(Rtc::restore(args(), section).error().code(), ErrorCode::corrupt);
}

} // namespace
} // namespace godwit::machine::platform
