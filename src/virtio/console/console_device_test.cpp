#include "sys/io_thread.h"
#include "virtio/console/console_device.h"
#include "virtio/testing/guest_driver.h"

#include <array>
#include <future>

namespace godwit::virtio {
namespace {

using testing::bytes_of;
using testing::GuestDriver;

struct ConsoleDeviceTest : ::testing::Test {
    std::unique_ptr<ConsoleDevice> make() {
        return GODWIT_MUST(ConsoleDevice::create(args())); // cannot fail but for descriptors
    }
    ConsoleDevice::Args args() {
        return {.instance = 0,
                .size = {.cols = 132, .rows = 43},
                .output =
                    [this](std::span<const std::byte> bytes) {
                        for (const std::byte byte : bytes) {
                            output.push_back(std::to_integer<char>(byte));
                        }
                    },
                .ready = [this] { ready.set_value(); },
                .loop = &io->loop()};
    }
    void activate() {
        driver.attach(*device);
        GODWIT_MUST(driver.activate(*device, feature_version_1)); // queues of the fake are sound
    }
    std::size_t type(std::string_view text) { return device->input(bytes_of(text)); }
    std::string typed_in(const testing::Offered& buffer) {
        const auto used = driver.wait_used(0);
        std::string text;
        for (const std::byte byte :
             driver.queue(0).read(buffer.writable_at(), used.has_value() ? used->written : 0)) {
            text.push_back(std::to_integer<char>(byte));
        }
        return text;
    }

    std::unique_ptr<sys::IoThread> io = testing::make_io_thread();
    GuestDriver driver{2};
    std::string output; ///< Written on the loop; read after waiting for the used buffer.
    std::promise<void> ready;
    std::unique_ptr<ConsoleDevice> device = make();
};

TEST_F(ConsoleDeviceTest, what_the_guest_writes_comes_out_in_order) {
    activate();
    device->wake();
    driver.queue(1).chain().readable(bytes_of("hello ")).readable(bytes_of("wor")).offer();
    driver.queue(1).chain().readable(bytes_of("ld")).offer();
    EXPECT_TRUE(driver.wait_used(1).has_value());
    EXPECT_TRUE(driver.wait_used(1).has_value());
    EXPECT_EQ(output, "hello world");
}

TEST_F(ConsoleDeviceTest, input_fills_buffers_and_waits_for_more) {
    activate();
    device->wake();
    const auto first = driver.queue(0).chain().writable(4).offer();
    EXPECT_EQ(type("ls -l\n"), 6U);
    EXPECT_EQ(typed_in(first), "ls -");
    const auto second = driver.queue(0).chain().writable(64).offer();
    EXPECT_EQ(typed_in(second), "l\n");
}

TEST_F(ConsoleDeviceTest, full_pending_buffer_takes_a_part_and_calls_when_ready) {
    activate();
    device->wake();
    EXPECT_EQ(type(std::string(5000, 'a')), console_pending_bytes_max);
    EXPECT_EQ(type("b"), 0U);
    driver.queue(0).chain().writable(100).offer();
    ready.get_future().wait();
    EXPECT_EQ(type("b"), 1U);
}

TEST_F(ConsoleDeviceTest, at_rest_nothing_is_taken_and_waking_calls_ready) {
    activate();
    EXPECT_EQ(type("x"), 0U);
    device->wake();
    ready.get_future().wait();
    EXPECT_EQ(type("x"), 1U);
    device->quiesce();
    device->quiesce();
    EXPECT_EQ(type("y"), 0U);
}

TEST_F(ConsoleDeviceTest, pending_input_and_size_move_to_the_successor) {
    activate();
    device->wake();
    EXPECT_EQ(type("typed before"), 12U);
    device->quiesce();
    const auto section = std::get<state::Section>(GODWIT_MUST(device->save()));
    const auto states = device->queue_states();
    auto second_args = args();
    second_args.size = {};
    device = GODWIT_MUST(ConsoleDevice::restore(std::move(second_args), section));
    driver.attach(*device);
    ASSERT_TRUE(driver.activate(*device, feature_version_1, states).has_value());
    EXPECT_EQ(std::get<state::Section>(GODWIT_MUST(device->save())).payload, section.payload);
    device->wake();
    const auto buffer = driver.queue(0).chain().writable(64).offer();
    EXPECT_EQ(typed_in(buffer), "typed before");
    std::array<std::byte, 4> config{};
    device->read_config(0, config);
    EXPECT_EQ(std::to_integer<int>(config[0]), 132);
    EXPECT_EQ(std::to_integer<int>(config[2]), 43);
}

TEST_F(ConsoleDeviceTest, new_size_interrupts_the_driver_once) {
    activate();
    device->wake();
    device->set_size({.cols = 80, .rows = 24});
    device->set_size({.cols = 80, .rows = 24});
    EXPECT_EQ(driver.host().config_notices(), 1U);
    std::array<std::byte, 2> rows{};
    device->read_config(2, rows);
    EXPECT_EQ(std::to_integer<int>(rows[0]), 24);
}

TEST_F(ConsoleDeviceTest, receive_buffer_that_cannot_be_filled_breaks_the_rules) {
    activate();
    device->wake();
    driver.queue(0).chain().readable(bytes_of("?")).offer();
    EXPECT_EQ(type("x"), 1U);
    EXPECT_TRUE(driver.host().wait_for_reset_asked());
    device->reset();
}

TEST_F(ConsoleDeviceTest, endless_output_buffer_breaks_the_rules) {
    activate();
    device->wake();
    driver.queue(1).chain().segment({.at = Gpa{0}, .bytes = 2U << 20U, .writable = false}).offer();
    EXPECT_TRUE(driver.host().wait_for_reset_asked());
    EXPECT_EQ(output, "");
}

TEST_F(ConsoleDeviceTest, restore_refuses_what_is_cut_or_beyond_limits) {
    auto section = save_console({.size = {}, .pending_input = std::string(4097, 'x')}, 0);
    EXPECT_FALSE(ConsoleDevice::restore(args(), section).has_value());
    section = save_console({.size = {}, .pending_input = "abc"}, 0);
    EXPECT_TRUE(ConsoleDevice::restore(args(), section).has_value());
    const std::string whole = section.payload;
    for (std::size_t bytes = 0; bytes < whole.size(); ++bytes) {
        section.payload = whole.substr(0, bytes);
        EXPECT_FALSE(ConsoleDevice::restore(args(), section).has_value());
    }
}

} // namespace
} // namespace godwit::virtio
