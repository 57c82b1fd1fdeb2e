#include "sys/io_thread.h"
#include "virtio/balloon/balloon_device.h"
#include "virtio/testing/guest_driver.h"

#include <array>
#include <cstring>

namespace godwit::virtio {
namespace {

using testing::bytes_of;
using testing::GuestDriver;

constexpr std::uint64_t stats_feature = 1U << 1U;
constexpr std::uint64_t reporting_feature = 1U << 5U;
constexpr std::uint64_t usual_features = feature_version_1 | stats_feature | reporting_feature;
/// Pages that no ring or buffer of the fake driver lies in.
constexpr std::uint32_t free_page = 6000;

std::vector<std::byte> list_of(std::initializer_list<std::uint32_t> pages) {
    std::vector<std::byte> bytes(pages.size() * 4);
    std::memcpy(bytes.data(), std::data(pages), bytes.size());
    return bytes;
}

std::vector<std::byte> report_of(std::uint16_t tag, std::uint64_t value) {
    std::vector<std::byte> bytes(10);
    std::memcpy(bytes.data(), &tag, 2);
    std::memcpy(bytes.data() + 2, &value, 8);
    return bytes;
}

struct BalloonDeviceTest : ::testing::Test {
    std::unique_ptr<BalloonDevice> make() {
        return GODWIT_MUST(BalloonDevice::create(args())); // cannot fail but for descriptors
    }
    BalloonDevice::Args args() {
        return {.instance = 0,
                .memory = driver.memory(),
                .reporting = FreePageReporting::on,
                .loop = &io->loop()};
    }
    void start(std::uint64_t features) {
        driver.attach(*device);
        GODWIT_MUST(driver.activate(*device, features)); // queues of the fake are sound
        device->wake();
    }
    void fill(std::uint32_t page) {
        GODWIT_MUST(driver.memory()->store(Gpa{page * page_size}, ~0ULL)); // a page of the RAM
    }
    bool is_zero(std::uint32_t page) {
        return GODWIT_MUST(driver.memory()->load<std::uint64_t>(Gpa{page * page_size})) == 0;
    }
    std::uint32_t config_word(std::uint32_t offset) {
        std::uint32_t value = 0;
        device->read_config(offset, std::as_writable_bytes(std::span(&value, 1)));
        return value;
    }

    std::unique_ptr<sys::IoThread> io = testing::make_io_thread();
    GuestDriver driver{5};
    std::unique_ptr<BalloonDevice> device = make();
};

TEST_F(BalloonDeviceTest, inflated_pages_go_back_to_the_host) {
    start(usual_features);
    fill(free_page);
    fill(free_page + 1);
    fill(free_page + 2);
    driver.queue(0).chain().readable(list_of({free_page + 2, free_page})).offer();
    ASSERT_TRUE(driver.wait_used(0).has_value());
    EXPECT_TRUE(is_zero(free_page));
    EXPECT_FALSE(is_zero(free_page + 1));
    EXPECT_TRUE(is_zero(free_page + 2));
    EXPECT_EQ(device->usage().released_bytes, 2 * page_size);
}

TEST_F(BalloonDeviceTest, deflated_pages_are_only_acknowledged) {
    start(usual_features);
    fill(free_page);
    driver.queue(1).chain().readable(list_of({free_page})).offer();
    ASSERT_TRUE(driver.wait_used(1).has_value());
    EXPECT_FALSE(is_zero(free_page));
    EXPECT_EQ(device->usage().released_bytes, 0U);
}

TEST_F(BalloonDeviceTest, page_outside_ram_breaks_the_rules) {
    start(usual_features);
    driver.queue(0).chain().readable(list_of({0xFFFF'FFFF})).offer();
    EXPECT_TRUE(driver.host().wait_for_reset_asked());
    EXPECT_EQ(driver.queue(0).used_waiting(), 0U);
}

TEST_F(BalloonDeviceTest, list_of_odd_length_breaks_the_rules) {
    start(usual_features);
    driver.queue(0).chain().readable(bytes_of("12345")).offer();
    EXPECT_TRUE(driver.host().wait_for_reset_asked());
}

TEST_F(BalloonDeviceTest, list_without_end_breaks_the_rules) {
    start(usual_features);
    driver.queue(0).chain().segment({.at = Gpa{0}, .bytes = 1U << 20U, .writable = false}).offer();
    EXPECT_TRUE(driver.host().wait_for_reset_asked());
}

TEST_F(BalloonDeviceTest, target_reaches_the_driver_and_actual_comes_back) {
    start(usual_features);
    ASSERT_TRUE(device->set_target(16 * mib).has_value());
    EXPECT_EQ(driver.host().config_notices(), 1U);
    EXPECT_EQ(config_word(0), 4096U);
    device->write_config(4, list_of({1234}));
    device->write_config(0, list_of({99}));
    EXPECT_EQ(config_word(0), 4096U);
    EXPECT_EQ(config_word(4), 1234U);
    EXPECT_EQ(device->usage().actual_bytes, 1234 * page_size);
}

TEST_F(BalloonDeviceTest, target_beyond_ram_or_off_a_page_is_refused) {
    EXPECT_FALSE(device->set_target(32 * mib).has_value());
    EXPECT_FALSE(device->set_target(4097).has_value());
    EXPECT_TRUE(device->set_target(0).has_value());
}

TEST_F(BalloonDeviceTest, reported_ranges_are_released_on_either_queue) {
    start(usual_features);
    for (const std::size_t queue : {3U, 4U}) {
        fill(free_page);
        fill(free_page + 1);
        driver.queue(queue)
            .chain()
            .segment({.at = Gpa{free_page * page_size + 8}, .bytes = 8192, .writable = true})
            .offer();
        ASSERT_TRUE(driver.wait_used(queue).has_value());
        EXPECT_FALSE(is_zero(free_page)); // Only a part of it was reported.
        EXPECT_TRUE(is_zero(free_page + 1));
    }
}

TEST_F(BalloonDeviceTest, without_statistics_the_third_queue_reports) {
    start(feature_version_1 | reporting_feature);
    fill(free_page);
    driver.queue(2)
        .chain()
        .segment({.at = Gpa{free_page * page_size}, .bytes = 4096, .writable = true})
        .offer();
    ASSERT_TRUE(driver.wait_used(2).has_value());
    EXPECT_TRUE(is_zero(free_page));
}

TEST_F(BalloonDeviceTest, statistics_are_read_and_asked_for_again) {
    start(usual_features);
    driver.queue(2).chain().readable(report_of(4, 777)).offer();
    ASSERT_TRUE(device->set_statistics_interval(std::chrono::milliseconds(100)).has_value());
    ASSERT_TRUE(driver.wait_used(2).has_value()); // The timer gives the buffer back.
    EXPECT_EQ(device->statistics().values[4], 777U);
    EXPECT_FALSE(device->statistics().values[0].has_value());
    driver.queue(2).chain().readable(report_of(4, 888)).offer();
    ASSERT_TRUE(driver.wait_used(2).has_value());
    EXPECT_EQ(device->statistics().values[4], 888U);
    EXPECT_EQ(device->statistics().reports, 2U);
}

TEST_F(BalloonDeviceTest, statistics_buffer_is_in_the_ring_at_rest) {
    start(usual_features);
    driver.queue(2).chain().readable(report_of(4, 777)).offer();
    device->quiesce();
    const auto states = device->queue_states();
    EXPECT_EQ(states.at(2)->next_available, 0U);
    EXPECT_EQ(states.at(2)->next_used, 0U);
    device->wake();
    EXPECT_EQ(device->statistics().values[4], 777U);
}

TEST_F(BalloonDeviceTest, too_frequent_statistics_are_refused) {
    EXPECT_FALSE(device->set_statistics_interval(std::chrono::milliseconds(1)).has_value());
}

TEST_F(BalloonDeviceTest, target_and_actual_move_to_the_successor) {
    start(usual_features);
    ASSERT_TRUE(device->set_target(8 * mib).has_value());
    device->write_config(4, list_of({100}));
    device->quiesce();
    auto section = std::get<state::Section>(GODWIT_MUST(device->save()));
    const auto second = GODWIT_MUST(BalloonDevice::restore(args(), section));
    EXPECT_EQ(second->usage().target_bytes, 8 * mib);
    EXPECT_EQ(second->usage().actual_bytes, 100 * page_size);
    EXPECT_EQ(std::get<state::Section>(GODWIT_MUST(second->save())).payload, section.payload);
    const std::string whole = section.payload;
    for (std::size_t bytes = 0; bytes < whole.size(); ++bytes) {
        section.payload = whole.substr(0, bytes);
        EXPECT_FALSE(BalloonDevice::restore(args(), section).has_value());
    }
}

TEST_F(BalloonDeviceTest, reset_gives_the_guest_its_pages_again) {
    start(usual_features);
    ASSERT_TRUE(device->set_target(8 * mib).has_value());
    device->write_config(4, list_of({100}));
    device->reset();
    EXPECT_EQ(config_word(0), 2048U);
    EXPECT_EQ(config_word(4), 0U);
}

TEST(BalloonPages, scattered_and_doubled_pages_become_runs) {
    const auto memory = testing::make_memory();
    testing::DriverQueue driver(memory, {});
    VirtQueue queue = driver.device_side();
    driver.chain().readable(list_of({9, 7, 8, 8, 20})).readable(list_of({21})).offer();
    Chain chain;
    ASSERT_TRUE(GODWIT_MUST(queue.pop(chain)));
    EXPECT_EQ(GODWIT_MUST(runs_of(chain, *memory)),
              (std::vector<PageRun>{{.first = PageIndex{7}, .pages = 3},
                                    {.first = PageIndex{20}, .pages = 2}}));
}

} // namespace
} // namespace godwit::virtio
