#include "sys/io_thread.h"
#include "virtio/rng/rng_device.h"
#include "virtio/testing/conformance.h"
#include "virtio/testing/driver_queue.h"
#include "virtio/testing/fake_device_host.h"

#include <algorithm>
#include <atomic>

namespace godwit::virtio {
namespace {

/// Gives the same byte for ever and counts.
struct CountingRandom final : sys::RandomSource {
    Status random_bytes(std::span<std::byte> out) noexcept override {
        if (fail) {
            return Error(ErrorCode::io, "the test has no entropy");
        }
        std::ranges::fill(out, std::byte{0x5a});
        given += out.size();
        return ok();
    }
    std::atomic<bool> fail{false};
    std::atomic<std::uint64_t> given{0};
};

struct RngDeviceTest : ::testing::Test {
    RngDeviceTest() : io(GODWIT_MUST(sys::IoThread::create("rng-test"))) { // a thread is to be had
        device =
            GODWIT_MUST(RngDevice::create({.instance = 0, .loop = io->loop(), .random = random}));
        device->attach(host);
        driver.set_doorbell(&doorbell);
    }
    void go() {
        Activation activation;
        activation.features = feature_version_1;
        activation.queues.emplace_back(driver.device_side());
        activation.doorbells.push_back(GODWIT_MUST(doorbell.duplicate())); // descriptors are left
        ASSERT_TRUE(device->activate(std::move(activation)).has_value());
        device->wake();
    }
    CountingRandom random;
    std::unique_ptr<sys::IoThread> io;
    testing::FakeDeviceHost host;
    testing::DriverQueue driver{testing::make_memory(), {.size = 64}};
    sys::EventFd doorbell{*sys::EventFd::create()};
    std::unique_ptr<RngDevice> device;
};

TEST_F(RngDeviceTest, buffer_is_filled) {
    go();
    const auto offered = driver.chain().writable(10).writable(6).offer();
    ASSERT_TRUE(host.wait_for_queue(0, 2));
    EXPECT_EQ(driver.take_used()->written, 16U);
    EXPECT_EQ(driver.read(offered.writable_at(1), 6), std::vector(6, std::byte{0x5a}));
}

TEST_F(RngDeviceTest, long_buffer_is_filled_up_to_the_limit) {
    go();
    driver.chain().writable(1 << 20).offer();
    ASSERT_TRUE(host.wait_for_queue(0, 2));
    EXPECT_EQ(driver.take_used()->written, rng_bytes_per_chain_max);
}

TEST_F(RngDeviceTest, read_only_buffer_asks_for_a_reset) {
    go();
    driver.chain().readable(testing::bytes_of("no room")).offer();
    EXPECT_TRUE(host.wait_for_reset_asked());
}

TEST_F(RngDeviceTest, greedy_guest_waits_for_the_next_period) {
    constexpr std::uint16_t chains = rng_bytes_per_period / rng_bytes_per_chain_max;
    testing::DriverQueue greedy(driver.shared_memory(), {.size = 64});
    static_assert(chains == 64, "one full queue is one period's worth");
    driver = std::move(greedy);
    driver.set_doorbell(&doorbell);
    for (std::uint16_t i = 0; i < chains; ++i) {
        driver.chain().writable(rng_bytes_per_chain_max).offer();
    }
    go();
    ASSERT_TRUE(host.wait_for_queue(0, 1));
    EXPECT_EQ(random.given, rng_bytes_per_period);
    while (driver.take_used().has_value()) {
    }
    driver.chain().writable(64).offer();
    doorbell.signal();
    ASSERT_TRUE(host.wait_for_queue(0, 3)) << "the next period serves it";
    EXPECT_EQ(random.given, rng_bytes_per_period + 64);
}

TEST_F(RngDeviceTest, failing_source_gives_an_empty_buffer) {
    random.fail = true;
    go();
    driver.chain().writable(16).offer();
    ASSERT_TRUE(host.wait_for_queue(0, 2));
    EXPECT_EQ(driver.take_used()->written, 0U);
}

TEST(SystemRandom, two_readings_differ) {
    std::array<std::byte, 32> first{};
    std::array<std::byte, 32> second{};
    ASSERT_TRUE(sys::system_random().random_bytes(first).has_value());
    ASSERT_TRUE(sys::system_random().random_bytes(second).has_value());
    EXPECT_NE(first, second);
}

struct RngMaker {
    CountingRandom random;
    std::unique_ptr<VirtioDevice> fresh(sys::EventLoop& loop) {
        return GODWIT_MUST( // cannot fail
            RngDevice::create({.instance = 0, .loop = loop, .random = random}));
    }
    Result<std::unique_ptr<VirtioDevice>> restored(sys::EventLoop& loop, const state::Section&) {
        return fresh(loop);
    }
};

} // namespace

namespace testing {
INSTANTIATE_TYPED_TEST_SUITE_P(Rng, DeviceConformance, RngMaker);
} // namespace testing
} // namespace godwit::virtio
