#include "machine/platform/acpi_pm.h"
#include "machine/platform/fake_irq_line.h"

#include <gtest/gtest.h>

#include <cstring>

namespace godwit::machine::platform {
namespace {

class SetClock final : public sys::Clock {
  public:
    [[nodiscard]] sys::Moment now() const noexcept override { return moment; }
    [[nodiscard]] std::int64_t unix_nanoseconds() const noexcept override { return 0; }
    sys::Moment moment;
};

class AcpiPmTest : public ::testing::Test {
  protected:
    AcpiPm::Args args(bus::IrqLine& line) {
        return {.line = &line, .clock = &clock_, .stop = [this](StopReason reason, std::string) {
                    stops_.push_back(reason);
                }};
    }
    template <typename T>
    T in(std::uint64_t offset) {
        T value{};
        pm_->read(offset, std::as_writable_bytes(std::span(&value, 1)));
        return value;
    }
    template <typename T>
    void out(std::uint64_t offset, T value) {
        pm_->write(offset, std::as_bytes(std::span(&value, 1)));
    }

    FakeIrqLine line_;
    SetClock clock_;
    std::vector<StopReason> stops_;
    std::unique_ptr<AcpiPm> pm_ = AcpiPm::create(args(line_));
};

TEST_F(AcpiPmTest, power_button_raises_the_sci_when_enabled_and_is_cleared_by_one) {
    pm_->press_power_button();
    EXPECT_FALSE(line_.level);
    out<std::uint16_t>(2, 0x100);
    EXPECT_TRUE(line_.level);
    EXPECT_EQ(in<std::uint16_t>(0), 0x100);
    out<std::uint16_t>(0, 0x100);
    EXPECT_FALSE(line_.level);
    EXPECT_EQ(in<std::uint16_t>(0), 0);
}

TEST_F(AcpiPmTest, every_fixed_event_can_be_enabled_and_read_back) {
    out<std::uint16_t>(2, 0xFFFF);
    EXPECT_EQ(in<std::uint16_t>(2), 0x0721);
}

TEST_F(AcpiPmTest, sleep_type_five_with_enable_powers_off) {
    out<std::uint16_t>(4, 5U << 10U);
    EXPECT_TRUE(stops_.empty());
    out<std::uint16_t>(4, (5U << 10U) | (1U << 13U));
    EXPECT_EQ(stops_, std::vector{StopReason::powered_off});
}

TEST_F(AcpiPmTest, other_sleep_types_do_nothing) {
    out<std::uint16_t>(4, (1U << 10U) | (1U << 13U));
    EXPECT_TRUE(stops_.empty());
}

TEST_F(AcpiPmTest, acpi_mode_is_always_on) {
    out<std::uint16_t>(4, 0);
    EXPECT_EQ(in<std::uint16_t>(4) & 1, 1);
}

TEST_F(AcpiPmTest, timer_counts_at_its_frequency) {
    clock_.moment += std::chrono::seconds(2);
    EXPECT_EQ(in<std::uint32_t>(8), 2 * 3'579'545U);
    clock_.moment += std::chrono::milliseconds(500);
    EXPECT_EQ(in<std::uint32_t>(8), 8'948'862U);
}

TEST_F(AcpiPmTest, running_restore_counts_the_time_between) {
    clock_.moment += std::chrono::seconds(1);
    const auto saved = std::get<state::Section>(*pm_->save());
    clock_.moment += std::chrono::seconds(1);
    pm_ = *AcpiPm::restore(args(line_), saved, TimerPolicy::running);
    EXPECT_EQ(in<std::uint32_t>(8), 2 * 3'579'545U);
}

TEST_F(AcpiPmTest, frozen_restore_continues_where_it_stopped) {
    clock_.moment += std::chrono::seconds(1);
    const auto saved = std::get<state::Section>(*pm_->save());
    clock_.moment += std::chrono::seconds(100);
    pm_ = *AcpiPm::restore(args(line_), saved, TimerPolicy::frozen);
    EXPECT_EQ(in<std::uint32_t>(8), 3'579'545U);
}

TEST_F(AcpiPmTest, restored_button_press_is_still_pending) {
    out<std::uint16_t>(2, 0x100);
    pm_->press_power_button();
    const auto saved = std::get<state::Section>(*pm_->save());
    FakeIrqLine line;
    auto restored = AcpiPm::restore(args(line), saved, TimerPolicy::frozen);
    ASSERT_TRUE(restored.has_value());
    EXPECT_TRUE(line.level);
    EXPECT_EQ(std::get<state::Section>(*(*restored)->save()).payload, saved.payload);
}

TEST_F(AcpiPmTest, impossible_register_values_are_refused) {
    // Field 1 (status) = 0x8000.
    const state::Section section{.id = {.name = "acpi-pm", .instance = 0},
                                 .version = 1,
                                 .required = true,
                                 .payload = std::string("\x08\x80\x80\x02\x18\x01", 6)};
    EXPECT_EQ(AcpiPm::restore(args(line_), section, TimerPolicy::frozen).error().code(),
              ErrorCode::corrupt);
}

} // namespace
} // namespace godwit::machine::platform
