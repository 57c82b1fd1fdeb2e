#include "virtio/net/net_spec.h"
#include "virtio/net/rx.h"
#include "virtio/testing/driver_queue.h"
#include "virtio/testing/socket_port.h"

namespace godwit::virtio {
namespace {

using testing::DriverQueue;
using testing::make_memory;
using testing::Offered;
using testing::SocketNetwork;
using testing::SocketPort;

/// A frame whose every byte tells where it belongs.
std::string frame_of(std::size_t bytes) {
    std::string frame(bytes, '\0');
    for (std::size_t i = 0; i < bytes; ++i) {
        frame[i] = static_cast<char>((i * 7 + i / 251) & 0x7FU);
    }
    return frame;
}

struct RxTest : ::testing::Test {
    RxQueue make(RxBuffers buffers, const std::string& held = {}) {
        return RxQueue(driver.device_side(), buffers, held);
    }
    /// The packet in `chains`, as the driver puts it together, without its header.
    std::string packet_in(const std::vector<Offered>& chains) {
        std::string packet;
        for (const Offered& chain : chains) {
            const auto used = driver.take_used();
            EXPECT_TRUE(used.has_value() && used->head == chain.head);
            std::size_t left = used->written;
            for (const testing::Segment& segment : chain.segments) {
                const std::size_t part = std::min<std::size_t>(left, segment.bytes);
                for (const std::byte byte : driver.read(segment.at, part)) {
                    packet.push_back(std::to_integer<char>(byte));
                }
                left -= part;
            }
        }
        buffers_named = static_cast<unsigned char>(packet[net_num_buffers_offset]);
        return packet.substr(net_header_bytes);
    }
    std::vector<Offered> offer(std::size_t chains, std::uint32_t bytes) {
        std::vector<Offered> offered;
        for (std::size_t i = 0; i < chains; ++i) {
            offered.push_back(driver.chain().writable(bytes).offer());
        }
        return offered;
    }

    DriverQueue driver{make_memory(), {.size = 64}};
    SocketNetwork network;
    SocketPort port{network, 1};
    NetDirectionTally tally;
    unsigned buffers_named = 0;
};

TEST_F(RxTest, packet_that_fits_one_chain_fills_it) {
    RxQueue rx = make(RxBuffers::one_chain);
    const auto chains = offer(1, 2048);
    network.send(0, frame_of(1514));
    EXPECT_EQ(GODWIT_MUST(rx.receive(port.fd(0), tally)), RxQueue::Stop::no_buffers);
    EXPECT_EQ(packet_in(chains), frame_of(1514));
    EXPECT_EQ(buffers_named, 1U);
    EXPECT_EQ(tally.read().packets, 1U);
    EXPECT_EQ(tally.read().bytes, 1514U);
}

TEST_F(RxTest, chain_of_many_segments_is_filled_in_order) {
    RxQueue rx = make(RxBuffers::one_chain);
    const std::vector<Offered> chains{
        driver.chain().writable(5).writable(6).writable(3).writable(2000).offer()};
    network.send(0, frame_of(100));
    ASSERT_TRUE(rx.receive(port.fd(0), tally).has_value());
    EXPECT_EQ(packet_in(chains), frame_of(100));
    EXPECT_EQ(buffers_named, 1U);
}

TEST_F(RxTest, packet_longer_than_one_chain_goes_over_several) {
    RxQueue rx = make(RxBuffers::mergeable);
    const auto chains = offer(3, 600);
    network.send(0, frame_of(1514));
    ASSERT_TRUE(rx.receive(port.fd(0), tally).has_value());
    EXPECT_EQ(packet_in(chains), frame_of(1514));
    EXPECT_EQ(buffers_named, 3U);
}

TEST_F(RxTest, full_segments_pass_whole_first_and_later) {
    RxQueue rx = make(RxBuffers::mergeable);
    auto chains = offer(34, 4096);
    const std::vector<Offered> first(chains.begin(), chains.begin() + 17);
    const std::vector<Offered> second(chains.begin() + 17, chains.end());
    network.send(0, frame_of(65550)); // Through the overflow buffer: nothing was known before.
    ASSERT_TRUE(rx.receive(port.fd(0), tally).has_value());
    EXPECT_EQ(packet_in(first), frame_of(65550));
    EXPECT_EQ(buffers_named, 17U);
    network.send(0, frame_of(65549));
    ASSERT_TRUE(rx.receive(port.fd(0), tally).has_value());
    EXPECT_EQ(packet_in(second), frame_of(65549));
    EXPECT_EQ(tally.read().dropped, 0U);
}

TEST_F(RxTest, packet_waits_until_there_is_room_for_all_of_it) {
    RxQueue rx = make(RxBuffers::mergeable);
    auto chains = offer(1, 600);
    network.send(0, frame_of(1514));
    EXPECT_EQ(GODWIT_MUST(rx.receive(port.fd(0), tally)), RxQueue::Stop::no_buffers);
    EXPECT_TRUE(rx.holding());
    EXPECT_EQ(driver.used_waiting(), 0U);
    for (const Offered& more : offer(2, 600)) {
        chains.push_back(more);
    }
    ASSERT_TRUE(rx.receive(port.fd(0), tally).has_value());
    EXPECT_EQ(packet_in(chains), frame_of(1514));
    EXPECT_FALSE(rx.holding());
}

TEST_F(RxTest, held_packet_survives_in_another_queue_object) {
    RxQueue first = make(RxBuffers::mergeable);
    auto chains = offer(1, 600);
    network.send(0, frame_of(1000));
    ASSERT_TRUE(first.receive(port.fd(0), tally).has_value());
    first.give_back();
    EXPECT_EQ(first.queue().state().next_available, 0U);
    EXPECT_EQ(first.queue().outstanding(), 0U);
    RxQueue second = make(RxBuffers::mergeable, first.held());
    chains.push_back(offer(1, 600).front());
    ASSERT_TRUE(second.receive(port.fd(0), tally).has_value());
    EXPECT_EQ(packet_in(chains), frame_of(1000));
}

TEST_F(RxTest, packet_that_fits_no_ring_full_of_buffers_is_dropped) {
    RxQueue rx = make(RxBuffers::mergeable);
    const auto chains = offer(64, 100);
    network.send(0, frame_of(9000));
    network.send(0, frame_of(60));
    ASSERT_TRUE(rx.receive(port.fd(0), tally).has_value());
    EXPECT_EQ(packet_in({chains[0]}), frame_of(60));
    EXPECT_EQ(tally.read().dropped, 1U);
}

TEST_F(RxTest, without_mergeable_buffers_a_long_packet_is_dropped) {
    RxQueue rx = make(RxBuffers::one_chain);
    const auto chains = offer(2, 600);
    network.send(0, frame_of(1514));
    network.send(0, frame_of(60));
    ASSERT_TRUE(rx.receive(port.fd(0), tally).has_value());
    EXPECT_EQ(packet_in({chains[0]}), frame_of(60));
    EXPECT_EQ(tally.read().dropped, 1U);
}

TEST_F(RxTest, nothing_is_read_without_buffers) {
    RxQueue rx = make(RxBuffers::mergeable);
    network.send(0, frame_of(60));
    EXPECT_EQ(GODWIT_MUST(rx.receive(port.fd(0), tally)), RxQueue::Stop::no_buffers);
    const auto chains = offer(1, 600);
    ASSERT_TRUE(rx.receive(port.fd(0), tally).has_value());
    EXPECT_EQ(packet_in(chains), frame_of(60));
}

TEST_F(RxTest, flood_ends_a_turn_before_the_ring_does) {
    RxQueue rx = make(RxBuffers::mergeable);
    offer(64, 600);
    for (int i = 0; i < 60; ++i) {
        network.send(0, frame_of(60));
    }
    EXPECT_EQ(GODWIT_MUST(rx.receive(port.fd(0), tally)), RxQueue::Stop::turn_over);
    EXPECT_LT(driver.used_waiting(), 60U);
    EXPECT_EQ(GODWIT_MUST(rx.receive(port.fd(0), tally)), RxQueue::Stop::no_packets);
    EXPECT_EQ(driver.used_waiting(), 60U);
}

TEST_F(RxTest, buffer_smaller_than_a_header_breaks_the_rules) {
    RxQueue rx = make(RxBuffers::mergeable);
    offer(1, 11);
    EXPECT_FALSE(rx.receive(port.fd(0), tally).has_value());
}

TEST_F(RxTest, packet_shorter_than_a_header_is_dropped) {
    RxQueue rx = make(RxBuffers::mergeable);
    offer(1, 600);
    GODWIT_MUST(sys::write_all(network.far[0], testing::bytes_of("short"))); // into a socket
    EXPECT_EQ(GODWIT_MUST(rx.receive(port.fd(0), tally)), RxQueue::Stop::no_packets);
    EXPECT_EQ(tally.read().dropped, 1U);
    EXPECT_EQ(driver.used_waiting(), 0U);
}

TEST_F(RxTest, closed_network_is_told) {
    RxQueue rx = make(RxBuffers::mergeable);
    offer(1, 600);
    network.far[0].reset();
    EXPECT_EQ(GODWIT_MUST(rx.receive(port.fd(0), tally)), RxQueue::Stop::port_gone);
}

} // namespace
} // namespace godwit::virtio
