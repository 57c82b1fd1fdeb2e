#include "machine/platform/fake_irq_line.h"
#include "machine/platform/serial.h"

#include <gtest/gtest.h>

#include <array>
#include <string>

namespace godwit::machine::platform {
namespace {

class SerialTest : public ::testing::Test {
  protected:
    Serial::Args args() {
        return {.line = &line_,
                .output =
                    [this](std::span<const std::byte> bytes) {
                        for (const std::byte byte : bytes) {
                            written_.push_back(std::to_integer<char>(byte));
                        }
                    },
                .input_ready = [this] { ++ready_; }};
    }
    void out(std::uint64_t offset, std::uint8_t value) {
        const std::byte byte{value};
        serial_->write(offset, std::span(&byte, 1));
    }
    std::uint8_t in(std::uint64_t offset) {
        std::byte byte{};
        serial_->read(offset, std::span(&byte, 1));
        return std::to_integer<std::uint8_t>(byte);
    }
    std::size_t feed(const std::string& text) {
        return serial_->input(std::as_bytes(std::span(text)));
    }

    FakeIrqLine line_;
    std::string written_;
    int ready_ = 0;
    std::unique_ptr<Serial> serial_ = Serial::create(args());
};

TEST_F(SerialTest, byte_written_is_handed_on) {
    out(0, 'x');
    EXPECT_EQ(written_, "x");
    EXPECT_EQ(in(5) & 0x60, 0x60);
}

TEST_F(SerialTest, input_is_read_in_order_and_interrupts) {
    out(1, 0x01);
    EXPECT_FALSE(line_.level);
    EXPECT_EQ(feed("ab"), 2U);
    EXPECT_TRUE(line_.level);
    EXPECT_EQ(in(2) & 0x0F, 0x04);
    EXPECT_EQ(in(0), 'a');
    EXPECT_TRUE(line_.level);
    EXPECT_EQ(in(0), 'b');
    EXPECT_FALSE(line_.level);
    EXPECT_EQ(in(5) & 1, 0);
}

TEST_F(SerialTest, transmit_interrupt_is_acknowledged_by_reading_its_id) {
    out(1, 0x02);
    EXPECT_TRUE(line_.level);
    EXPECT_EQ(in(2) & 0x0F, 0x02);
    EXPECT_FALSE(line_.level);
    EXPECT_EQ(in(2) & 0x0F, 0x01);
    out(0, 'x');
    EXPECT_TRUE(line_.level);
}

TEST_F(SerialTest, divisor_latch_hides_data_and_enable_registers) {
    out(3, 0x80);
    out(0, 0x34);
    out(1, 0x12);
    EXPECT_EQ(in(0), 0x34);
    EXPECT_EQ(in(1), 0x12);
    out(3, 0x03);
    EXPECT_EQ(in(1), 0);
    EXPECT_TRUE(written_.empty());
}

TEST_F(SerialTest, loopback_returns_bytes_and_modem_lines) {
    out(4, 0x1A);
    EXPECT_EQ(in(6) & 0xF0, 0x90);
    out(0, 'z');
    EXPECT_TRUE(written_.empty());
    EXPECT_EQ(in(0), 'z');
}

TEST_F(SerialTest, loopback_overrun_is_reported_once) {
    out(4, 0x10);
    for (int i = 0; i < 17; ++i) {
        out(0, 'z');
    }
    EXPECT_EQ(in(5) & 0x02, 0x02);
    EXPECT_EQ(in(5) & 0x02, 0);
}

TEST_F(SerialTest, scratch_register_and_fifo_identify_a_16550a) {
    out(7, 0x5A);
    EXPECT_EQ(in(7), 0x5A);
    out(2, 0x01);
    EXPECT_EQ(in(2) & 0xC0, 0xC0);
}

TEST_F(SerialTest, full_input_is_refused_and_asked_for_again) {
    const std::string flood(Serial::received_bytes_max + 10, 'f');
    EXPECT_EQ(feed(flood), Serial::received_bytes_max);
    EXPECT_EQ(ready_, 0);
    for (std::size_t i = 0; i <= Serial::received_bytes_max / 2; ++i) {
        in(0);
    }
    EXPECT_EQ(ready_, 1);
}

TEST_F(SerialTest, restored_port_saves_the_same_bytes_and_raises_its_line) {
    out(1, 0x03);
    out(2, 0xC1);
    out(3, 0x03);
    out(4, 0x0B);
    out(7, 0x77);
    feed("pending");
    const auto saved = std::get<state::Section>(*serial_->save());
    FakeIrqLine line;
    Serial::Args other = args();
    other.line = &line;
    auto restored = Serial::restore(std::move(other), saved);
    ASSERT_TRUE(restored.has_value());
    EXPECT_TRUE(line.level);
    EXPECT_EQ(std::get<state::Section>(*(*restored)->save()).payload, saved.payload);
}

TEST_F(SerialTest, state_with_too_much_input_is_refused) {
    feed(std::string(Serial::received_bytes_max, 'x'));
    auto saved = std::get<state::Section>(*serial_->save());
    saved.payload += saved.payload; // a repeated singular field wins
    saved.payload.resize(saved.payload.size() - 1);
    EXPECT_FALSE(Serial::restore(args(), saved).has_value());
}

} // namespace
} // namespace godwit::machine::platform
