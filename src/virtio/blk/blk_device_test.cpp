#include "sys/clock.h"
#include "sys/io_thread.h"
#include "virtio/blk/blk_device.h"
#include "virtio/testing/driver_queue.h"
#include "virtio/testing/fake_device_host.h"
#include "virtio/testing/memory_disk.h"

#include <array>
#include <cerrno>
#include <cstring>

namespace godwit::virtio {
namespace {

using testing::bytes_of;
using testing::DriverQueue;
using testing::MemoryDisk;
using testing::MemoryDiskControl;
using testing::Offered;

constexpr std::uint32_t in = 0;
constexpr std::uint32_t out = 1;
constexpr std::uint32_t flush = 4;
constexpr std::uint32_t get_id = 8;
constexpr std::uint32_t discard_type = 11;
constexpr std::uint32_t zeroes_type = 13;
constexpr std::uint64_t all_features = feature_version_1 | feature_event_index |
                                       blk_feature::flush | blk_feature::discard |
                                       blk_feature::write_zeroes;

std::vector<std::byte> header(std::uint32_t type, std::uint64_t sector) {
    std::vector<std::byte> bytes(16);
    std::memcpy(bytes.data(), &type, 4);
    std::memcpy(bytes.data() + 8, &sector, 8);
    return bytes;
}

std::vector<std::byte> range(std::uint64_t sector, std::uint32_t sectors, std::uint32_t flags) {
    std::vector<std::byte> bytes(16);
    std::memcpy(bytes.data(), &sector, 8);
    std::memcpy(bytes.data() + 8, &sectors, 4);
    std::memcpy(bytes.data() + 12, &flags, 4);
    return bytes;
}

std::vector<std::byte> pattern(std::size_t bytes, int seed) {
    std::vector<std::byte> data(bytes);
    for (std::size_t i = 0; i < bytes; ++i) {
        data[i] = static_cast<std::byte>(static_cast<int>(i * 7) + seed);
    }
    return data;
}

struct BlkDeviceTest : ::testing::Test {
    BlkDeviceTest() : io(GODWIT_MUST(sys::IoThread::create("blk-test"))) { // a thread is to be had
        device = GODWIT_MUST(BlkDevice::create(args()));
        device->attach(host);
    }
    [[nodiscard]] BlkDevice::Args args() {
        return {.options = {.instance = 0, .serial = "disk0", .queues = 2, .queue_size = 16},
                .disk = std::make_unique<MemoryDisk>(io->loop(), geometry, control),
                .loop = io->loop(),
                .health_changed = [this](const Error* reason) {
                    ++(reason != nullptr ? failures : recoveries);
                }};
    }
    [[nodiscard]] Activation activation(std::uint64_t features) {
        Activation made;
        made.features = features;
        made.queues.emplace_back(driver.device_side());
        made.queues.emplace_back(std::nullopt);
        for (int i = 0; i < 2; ++i) {
            made.doorbells.push_back(GODWIT_MUST(doorbell.duplicate()));
        }
        return made;
    }
    void go(std::uint64_t features = all_features) {
        driver.set_doorbell(&doorbell);
        ASSERT_TRUE(device->activate(activation(features)).has_value());
        device->wake();
    }
    /// The status byte of the next request answered; the chain must be its last one.
    std::uint8_t status_of(const Offered& offered) {
        if (!host.wait_for_queue(0, ++notices)) {
            return 0xff;
        }
        const auto used = driver.take_used();
        driver.set_used_event(static_cast<std::uint16_t>(++answered));
        if (!used.has_value() || used->head != offered.head) {
            return 0xfe;
        }
        const auto& last = offered.segments.back();
        return std::to_integer<std::uint8_t>(
            driver.read(Gpa{last.at.value + last.bytes - 1}, 1).front());
    }
    std::uint8_t transfer(std::uint32_t type, std::uint64_t sector, std::size_t bytes) {
        auto chain = driver.chain().readable(header(type, sector));
        if (type == out) {
            chain.readable(pattern(bytes, 1));
        } else {
            chain.writable(static_cast<std::uint32_t>(bytes));
        }
        return status_of(chain.writable(1).offer());
    }

    block::BlockGeometry geometry{.bytes = 1 * mib,
                                  .logical_block_bytes = 512,
                                  .physical_block_bytes = 4096,
                                  .read_only = false,
                                  .can_discard = true,
                                  .can_write_zeroes = true,
                                  .memory_alignment_bytes = 1};
    int failures = 0;
    int recoveries = 0;
    std::uint32_t notices = 1; ///< wake() interrupts once.
    std::uint16_t answered = 0;
    std::unique_ptr<sys::IoThread> io;
    std::shared_ptr<MemoryDiskControl> control = std::make_shared<MemoryDiskControl>();
    testing::FakeDeviceHost host;
    DriverQueue driver{testing::make_memory(),
                       {.features = {.event_index = true, .indirect = true}}};
    sys::EventFd doorbell{*sys::EventFd::create()};
    std::unique_ptr<BlkDevice> device;
};

TEST_F(BlkDeviceTest, written_blocks_are_read_back) {
    go();
    EXPECT_EQ(status_of(driver.chain()
                            .readable(header(out, 8))
                            .readable(pattern(1024, 3))
                            .readable(pattern(512, 9))
                            .writable(1)
                            .offer()),
              0);
    const Offered read =
        driver.chain().readable(header(in, 8)).writable(1024).writable(513).indirect().offer();
    EXPECT_EQ(status_of(read), 0);
    EXPECT_EQ(driver.read(read.writable_at(0), 1024), pattern(1024, 3));
    EXPECT_EQ(driver.read(read.writable_at(1), 512), pattern(512, 9));
}

TEST_F(BlkDeviceTest, header_and_data_may_be_cut_anywhere) {
    go();
    auto bytes = header(out, 0);
    const auto data = pattern(512, 5);
    bytes.insert(bytes.end(), data.begin(), data.end());
    const auto part = [&](std::size_t from, std::size_t to) {
        return std::vector<std::byte>(bytes.begin() + static_cast<std::ptrdiff_t>(from),
                                      bytes.begin() + static_cast<std::ptrdiff_t>(to));
    };
    EXPECT_EQ(status_of(driver.chain()
                            .readable(part(0, 3))
                            .readable(part(3, 100))
                            .readable(part(100, 528))
                            .writable(1)
                            .offer()),
              0);
    const Offered read = driver.chain().readable(header(in, 0)).writable(513).offer();
    EXPECT_EQ(status_of(read), 0);
    EXPECT_EQ(driver.read(read.writable_at(), 512), data);
}

TEST_F(BlkDeviceTest, transfers_outside_or_across_blocks_fail) {
    go();
    EXPECT_EQ(transfer(in, 2048, 512), 1) << "behind the end";
    EXPECT_EQ(transfer(in, 2047, 1024), 1) << "across the end";
    EXPECT_EQ(transfer(out, 1ULL << 55U, 512), 1) << "overflow";
    EXPECT_EQ(transfer(out, 0, 100), 1) << "not whole blocks";
    EXPECT_EQ(status_of(driver.chain().readable(header(in, 0)).writable(1).offer()), 1);
    EXPECT_TRUE(control->seen().empty());
    EXPECT_EQ(failures, 0) << "the operator has nothing to do with it";
}

TEST_F(BlkDeviceTest, unknown_requests_are_unsupported) {
    go();
    EXPECT_EQ(transfer(99, 0, 512), 2);
}

TEST_F(BlkDeviceTest, serial_number_is_given) {
    go();
    const Offered id = driver.chain().readable(header(get_id, 0)).writable(20).writable(1).offer();
    EXPECT_EQ(status_of(id), 0);
    auto expected = bytes_of("disk0");
    expected.resize(20);
    EXPECT_EQ(driver.read(id.writable_at(), 20), expected);
    EXPECT_EQ(status_of(driver.chain().readable(header(get_id, 0)).writable(8).offer()), 1);
}

TEST_F(BlkDeviceTest, writes_are_durable_when_flush_is_not_negotiated) {
    go(feature_version_1 | feature_event_index);
    EXPECT_EQ(transfer(out, 0, 512), 0);
    EXPECT_TRUE(control->seen().at(0).force_unit_access);
}

TEST_F(BlkDeviceTest, flush_reaches_the_disk_and_writes_are_cached_then) {
    go();
    EXPECT_EQ(transfer(out, 0, 512), 0);
    EXPECT_EQ(status_of(driver.chain().readable(header(flush, 0)).writable(1).offer()), 0);
    EXPECT_FALSE(control->seen().at(0).force_unit_access);
    EXPECT_EQ(control->seen().at(1).operation, block::BlockOperation::flush);
}

TEST_F(BlkDeviceTest, discard_and_write_zeroes_reach_the_disk) {
    go();
    EXPECT_EQ(status_of(driver.chain()
                            .readable(header(discard_type, 0))
                            .readable(range(8, 16, 0))
                            .writable(1)
                            .offer()),
              0);
    EXPECT_EQ(status_of(driver.chain()
                            .readable(header(zeroes_type, 0))
                            .readable(range(24, 8, 1))
                            .writable(1)
                            .offer()),
              0);
    const auto seen = control->seen();
    EXPECT_EQ(seen.at(0).operation, block::BlockOperation::discard);
    EXPECT_EQ(seen.at(0).offset, 8 * sector_size);
    EXPECT_EQ(seen.at(0).bytes, 16 * sector_size);
    EXPECT_EQ(seen.at(1).operation, block::BlockOperation::write_zeroes);
    EXPECT_TRUE(seen.at(1).may_unmap);
}

TEST_F(BlkDeviceTest, bad_discards_are_refused) {
    go();
    const auto discard_of = [&](const std::vector<std::byte>& body) {
        return status_of(
            driver.chain().readable(header(discard_type, 0)).readable(body).writable(1).offer());
    };
    EXPECT_EQ(discard_of(range(0, 8, 1)), 2) << "unmap flag";
    EXPECT_EQ(discard_of(range(2040, 16, 0)), 1) << "across the end";
    EXPECT_EQ(discard_of(range(0, 0xffff'ffff, 0)), 1) << "above the limit";
    EXPECT_EQ(discard_of(range(0, 0, 0)), 1);
    EXPECT_EQ(discard_of(pattern(15, 0)), 1);
    EXPECT_TRUE(control->seen().empty());
}

TEST_F(BlkDeviceTest, discard_not_negotiated_is_unsupported) {
    go(feature_version_1 | feature_event_index | blk_feature::flush);
    EXPECT_EQ(status_of(driver.chain()
                            .readable(header(discard_type, 0))
                            .readable(range(8, 16, 0))
                            .writable(1)
                            .offer()),
              2);
}

TEST_F(BlkDeviceTest, failing_disk_is_told_once_until_it_works) {
    go();
    control->fail_with(EIO);
    EXPECT_EQ(transfer(out, 0, 512), 1);
    EXPECT_EQ(transfer(out, 0, 512), 1);
    control->fail_with(0);
    EXPECT_EQ(transfer(out, 0, 512), 0);
    device->quiesce();
    EXPECT_EQ(failures, 1);
    EXPECT_EQ(recoveries, 1);
    EXPECT_EQ(device->statistics().errors, 2U);
    EXPECT_EQ(device->statistics().requests, 3U);
}

// Some blocks can be written and others not: one message, not one for each change.
TEST_F(BlkDeviceTest, disk_that_comes_and_goes_is_told_ever_more_rarely) {
    go();
    for (int round = 0; round < 9; ++round) {
        control->fail_with(ENOSPC);
        EXPECT_EQ(transfer(out, 0, 512), 1);
        control->fail_with(0);
        EXPECT_EQ(transfer(out, 0, 512), 0);
    }
    device->quiesce();
    EXPECT_EQ(failures, 4) << "the 1st, 2nd, 4th and 8th time";
    EXPECT_EQ(recoveries, 4);
}

TEST_F(BlkDeviceTest, chain_without_status_asks_for_a_reset) {
    go();
    driver.chain().readable(header(in, 0)).offer();
    ASSERT_TRUE(host.wait_for_reset_asked());
    driver.chain().readable(header(in, 0)).writable(513).offer();
    device->quiesce();
    EXPECT_EQ(driver.used_waiting(), 0U) << "nothing is served any more";
    EXPECT_EQ(host.resets_asked(), 1U);
}

TEST_F(BlkDeviceTest, chain_shorter_than_the_header_asks_for_a_reset) {
    go();
    driver.chain().readable(bytes_of("short")).writable(513).offer();
    EXPECT_TRUE(host.wait_for_reset_asked());
}

TEST_F(BlkDeviceTest, requests_of_a_batch_share_one_kick) {
    device->wake();
    for (int i = 0; i < 5; ++i) {
        driver.chain().readable(header(in, 0)).writable(513).offer();
    }
    ASSERT_TRUE(device->activate(activation(all_features)).has_value());
    device->quiesce();
    EXPECT_EQ(driver.used_waiting(), 5U);
    EXPECT_EQ(control->kicks(), 1U);
    EXPECT_EQ(host.queue_notices(0), 1U);
}

TEST_F(BlkDeviceTest, requests_offered_together_cost_one_kick_and_one_interrupt) {
    go();
    driver.set_doorbell(nullptr);
    ASSERT_TRUE(host.wait_for_queue(0, 1)); // wake()
    const std::uint32_t kicks = control->kicks();
    for (int i = 0; i < 8; ++i) {
        driver.chain().readable(header(in, 0)).writable(513).indirect().offer();
    }
    doorbell.signal();
    ASSERT_TRUE(host.wait_for_queue(0, 2));
    device->quiesce();
    EXPECT_EQ(driver.used_waiting(), 8U);
    EXPECT_EQ(control->kicks(), kicks + 1);
    EXPECT_EQ(host.queue_notices(0), 2U);
}

TEST_F(BlkDeviceTest, busy_disk_finds_requests_without_the_doorbell) {
    go();
    driver.set_doorbell(nullptr);
    control->hold(true);
    for (int i = 0; i < 8; ++i) {
        driver.chain().readable(header(in, 0)).writable(513).indirect().offer();
    }
    doorbell.signal();
    ASSERT_TRUE(control->wait_for_requests(8));
    driver.chain().readable(header(in, 0)).writable(513).indirect().offer();
    EXPECT_TRUE(control->wait_for_requests(9)) << "seen after a while, though nothing completes";
    io->loop().run_and_wait([] {}); // it has left the ring
    driver.chain().readable(header(in, 0)).writable(513).indirect().offer();
    EXPECT_TRUE(driver.doorbell_wanted()) << "a disk that stands still is not waited for twice";
    doorbell.signal();
    ASSERT_TRUE(control->wait_for_requests(10));
    control->release();
    device->quiesce();
    EXPECT_EQ(driver.used_waiting(), 10U);
}

TEST_F(BlkDeviceTest, completion_looks_for_requests_before_it_interrupts) {
    go();
    driver.set_doorbell(nullptr);
    control->hold(true);
    for (int i = 0; i < 8; ++i) {
        driver.chain().readable(header(in, 0)).writable(513).indirect().offer();
    }
    doorbell.signal();
    ASSERT_TRUE(control->wait_for_requests(8));
    driver.chain().readable(header(in, 0)).writable(513).indirect().offer();
    control->release();
    ASSERT_TRUE(control->wait_for_requests(9));
    device->quiesce();
    EXPECT_EQ(driver.used_waiting(), 9U);
    EXPECT_LE(host.queue_notices(0), 3U) << "wake, the batch, the late one";
}

TEST_F(BlkDeviceTest, quiesce_waits_for_what_is_in_flight_and_takes_nothing_new) {
    go();
    control->hold(true);
    driver.chain().readable(header(in, 0)).writable(513).offer();
    ASSERT_TRUE(control->wait_for_requests(1));
    control->release();
    device->quiesce();
    EXPECT_EQ(driver.used_waiting(), 1U);
    driver.chain().readable(header(in, 0)).writable(513).offer();
    doorbell.signal();
    device->quiesce();
    EXPECT_EQ(driver.used_waiting(), 1U);
    device->wake();
    device->quiesce();
    EXPECT_EQ(driver.used_waiting(), 2U) << "wake looks at the queue by itself";
}

// A disk that never answers does not hold up whoever wants the device at rest: it works on.
TEST_F(BlkDeviceTest, quiesce_with_a_deadline_gives_up_and_works_on) {
    go();
    control->hold(true);
    driver.chain().readable(header(in, 0)).writable(513).offer();
    ASSERT_TRUE(control->wait_for_requests(1));
    EXPECT_FALSE(device->quiesce_until(sys::system_clock().now()));
    driver.chain().readable(header(in, 0)).writable(513).offer();
    ASSERT_TRUE(control->wait_for_requests(2)) << "it does not take requests any more";
    control->release();
    EXPECT_TRUE(device->quiesce_until(sys::system_clock().now() + std::chrono::seconds(30)));
    EXPECT_EQ(driver.used_waiting(), 2U);
}

TEST_F(BlkDeviceTest, what_waits_for_room_is_done_after_the_rest) {
    go();
    control->hold_for_room();
    driver.chain().readable(header(out, 0)).readable(pattern(512, 1)).writable(1).offer();
    ASSERT_TRUE(control->wait_for_requests(1));
    device->quiesce();
    EXPECT_EQ(driver.used_waiting(), 0U);
    EXPECT_EQ(failures, 0);
    control->release();
    device->wake();
    ASSERT_TRUE(control->wait_for_requests(2));
    device->quiesce();
    EXPECT_EQ(driver.used_waiting(), 1U);
}

TEST_F(BlkDeviceTest, what_waits_for_room_is_done_by_the_next_owner) {
    go();
    control->hold_for_room();
    const std::array offered{
        driver.chain().readable(header(out, 0)).readable(pattern(512, 1)).writable(1).offer().head,
        driver.chain().readable(header(out, 8)).readable(pattern(512, 2)).writable(1).offer().head};
    ASSERT_TRUE(control->wait_for_requests(2));
    device->quiesce();
    const auto saved = std::get<state::Section>(GODWIT_MUST(device->save())); // Always a section.
    EXPECT_EQ(saved.version, 2U);
    const BlkState state = GODWIT_MUST(decode_blk(saved)); // Just encoded.
    ASSERT_EQ(state.given_back.size(), 2U);
    EXPECT_EQ(state.given_back[0], (GivenBack{.queue = 0, .head = offered[0]}));
    const QueueState ring = device->queue_states()[0].value_or(QueueState());
    control = std::make_shared<MemoryDiskControl>();
    auto next = GODWIT_MUST(BlkDevice::restore(args(), saved)); // The same disk.
    next->attach(host);
    Activation there;
    there.features = all_features;
    there.queues.emplace_back(GODWIT_MUST( // As it was saved.
        VirtQueue::create(driver.shared_memory(), ring, {.event_index = true, .indirect = true})));
    there.queues.emplace_back(std::nullopt);
    there.doorbells.push_back(GODWIT_MUST(doorbell.duplicate()));
    there.doorbells.push_back(GODWIT_MUST(doorbell.duplicate()));
    ASSERT_TRUE(next->activate(std::move(there)).has_value());
    EXPECT_EQ(std::get<state::Section>(GODWIT_MUST(next->save())).payload, saved.payload);
    next->wake();
    ASSERT_TRUE(control->wait_for_requests(2));
    next->quiesce();
    EXPECT_EQ(driver.used_waiting(), 2U);
    EXPECT_EQ(control->seen()[1].offset, 8U * 512);
    EXPECT_EQ(std::get<state::Section>(GODWIT_MUST(next->save())).version, 1U);
}

TEST_F(BlkDeviceTest, heads_that_no_driver_can_have_given_are_refused) {
    BlkState state{.options = args().options, .geometry = geometry};
    state.given_back = {{.queue = 0, .head = 3}, {.queue = 0, .head = 3}};
    auto next = GODWIT_MUST(BlkDevice::restore(args(), encode(state, 0))); // Good as such.
    next->attach(host);
    EXPECT_FALSE(next->activate(activation(all_features)).has_value());
    state.given_back = {{.queue = 0, .head = 16}};
    EXPECT_EQ(decode_blk(encode(state, 0)).error().code(), ErrorCode::corrupt);
    state.given_back = {{.queue = 2, .head = 0}};
    EXPECT_EQ(decode_blk(encode(state, 0)).error().code(), ErrorCode::corrupt);
    state::Section old = encode(state, 0);
    old.version = 1;
    EXPECT_EQ(decode_blk(old).error().code(), ErrorCode::corrupt);
}

TEST_F(BlkDeviceTest, reset_waits_and_a_new_activation_works) {
    go();
    control->hold(true);
    driver.chain().readable(header(in, 0)).writable(513).offer();
    ASSERT_TRUE(control->wait_for_requests(1));
    control->release();
    device->reset();
    EXPECT_FALSE(device->queue_states().at(0).has_value());
    DriverQueue again(driver.shared_memory(), driver.options());
    driver = std::move(again);
    driver.set_doorbell(&doorbell);
    ASSERT_TRUE(device->activate(activation(all_features)).has_value());
    driver.chain().readable(header(in, 0)).writable(513).offer();
    device->quiesce();
    EXPECT_EQ(control->seen().size(), 2U);
}

TEST_F(BlkDeviceTest, read_only_disk_refuses_changes) {
    geometry.read_only = true;
    device = GODWIT_MUST(BlkDevice::create(args())); // as in the fixture
    device->attach(host);
    EXPECT_NE(device->features() & blk_feature::read_only, 0U);
    EXPECT_EQ(device->features() & (blk_feature::discard | blk_feature::write_zeroes), 0U);
    go();
    EXPECT_EQ(transfer(out, 0, 512), 1);
    EXPECT_EQ(transfer(in, 0, 512), 0);
}

TEST_F(BlkDeviceTest, resized_disk_tells_the_guest) {
    go();
    control->resize(2 * mib);
    EXPECT_EQ(GODWIT_MUST(device->refresh()), 2 * mib);
    EXPECT_EQ(host.config_notices(), 1U);
    std::uint64_t sectors = 0;
    device->read_config(0, std::as_writable_bytes(std::span(&sectors, 1)));
    EXPECT_EQ(sectors, 4096U);
    EXPECT_EQ(transfer(in, 4095, 512), 0);
    EXPECT_TRUE(device->refresh().has_value());
    EXPECT_EQ(host.config_notices(), 1U) << "no change, no notice";
}

TEST_F(BlkDeviceTest, configuration_tells_limits) {
    std::array<std::byte, 64> config{};
    device->read_config(0, config);
    const auto word = [&](std::size_t at) {
        std::uint32_t value = 0;
        std::memcpy(&value, config.data() + at, 4);
        return value;
    };
    EXPECT_EQ(word(12), 14U) << "seg_max";
    EXPECT_EQ(word(20), 512U) << "blk_size";
    EXPECT_EQ(config[24], std::byte{3}) << "4096-byte physical blocks";
    EXPECT_EQ(word(32) >> 16U, 2U) << "queues";
}

TEST_F(BlkDeviceTest, another_disk_than_the_saved_one_is_refused) {
    const auto section = std::get<state::Section>(GODWIT_MUST(device->save()));
    auto other = args();
    other.options.serial = "disk1";
    EXPECT_FALSE(BlkDevice::restore(std::move(other), section).has_value());
    auto fewer_queues = args();
    fewer_queues.options.queues = 1;
    EXPECT_FALSE(BlkDevice::restore(std::move(fewer_queues), section).has_value());
    geometry.logical_block_bytes = 4096;
    EXPECT_FALSE(BlkDevice::restore(args(), section).has_value());
}

TEST_F(BlkDeviceTest, smaller_blocks_than_the_guest_knows_stay_hidden_from_it) {
    geometry.logical_block_bytes = 4096;
    device = GODWIT_MUST(BlkDevice::create(args())); // Good options.
    const auto section = std::get<state::Section>(GODWIT_MUST(device->save()));
    geometry.logical_block_bytes = 512;
    device = GODWIT_MUST(BlkDevice::restore(args(), section)); // Each of them is eight of these.
    std::uint32_t block_bytes = 0;
    device->read_config(20, std::as_writable_bytes(std::span(&block_bytes, 1)));
    EXPECT_EQ(block_bytes, 4096U);
    EXPECT_EQ(device->capacity_bytes(), geometry.bytes);
}

TEST_F(BlkDeviceTest, size_changed_in_between_is_told_at_wake) {
    const auto section = std::get<state::Section>(GODWIT_MUST(device->save()));
    geometry.bytes = 4 * mib;
    device = GODWIT_MUST(BlkDevice::restore(args(), section)); // only the size differs
    device->attach(host);
    go();
    EXPECT_EQ(host.config_notices(), 1U);
}

TEST(BlkOptions, bad_ones_are_refused) {
    const auto refused = [](auto change) {
        BlkOptions options;
        change(options);
        return !validate(options).has_value();
    };
    EXPECT_FALSE(refused([](BlkOptions&) {}));
    EXPECT_TRUE(refused([](BlkOptions& o) { o.serial = std::string(21, 'x'); }));
    EXPECT_TRUE(refused([](BlkOptions& o) { o.queues = 0; }));
    EXPECT_TRUE(refused([](BlkOptions& o) { o.queues = 65; }));
    EXPECT_TRUE(refused([](BlkOptions& o) { o.queue_size = 100; }));
    EXPECT_TRUE(refused([](BlkOptions& o) { o.queue_size = 2048; }));
}

} // namespace
} // namespace godwit::virtio
