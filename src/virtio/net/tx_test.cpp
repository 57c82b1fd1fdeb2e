#include "virtio/net/net_spec.h"
#include "virtio/net/tx.h"
#include "virtio/testing/driver_queue.h"
#include "virtio/testing/socket_port.h"

namespace godwit::virtio {
namespace {

using testing::bytes_of;
using testing::DriverQueue;
using testing::make_memory;
using testing::SocketNetwork;
using testing::SocketPort;

struct TxTest : ::testing::Test {
    void offer(const std::string& frame) {
        driver.chain()
            .readable(bytes_of(std::string(net_header_bytes, '\0')))
            .readable(bytes_of(frame))
            .offer();
    }

    DriverQueue driver{make_memory(), {.size = 128}};
    TxQueue tx{driver.device_side()};
    SocketNetwork network;
    SocketPort port{network, 1};
    NetDirectionTally tally;
};

TEST_F(TxTest, packet_leaves_whole_and_its_buffers_come_back) {
    const std::string frame(65550, 'x');
    offer(frame);
    EXPECT_EQ(GODWIT_MUST(tx.transmit(port.fd(0), tally)), TxQueue::Stop::no_packets);
    EXPECT_EQ(network.receive(0), frame);
    EXPECT_EQ(driver.used_waiting(), 1U);
    EXPECT_EQ(tally.read().packets, 1U);
    EXPECT_EQ(tally.read().bytes, frame.size());
}

TEST_F(TxTest, short_and_overlong_packets_are_dropped_and_counted) {
    offer("only 13 bytes");
    offer(std::string(65600, 'x'));
    offer("a frame that is long enough");
    EXPECT_EQ(GODWIT_MUST(tx.transmit(port.fd(0), tally)), TxQueue::Stop::no_packets);
    EXPECT_EQ(network.receive(0), "a frame that is long enough");
    EXPECT_EQ(tally.read().dropped, 2U);
    EXPECT_EQ(driver.used_waiting(), 3U);
}

TEST_F(TxTest, packet_stays_in_the_ring_while_the_port_is_full) {
    const std::string frame(60000, 'x');
    for (int i = 0; i < 8; ++i) {
        offer(frame);
    }
    EXPECT_EQ(GODWIT_MUST(tx.transmit(port.fd(0), tally)), TxQueue::Stop::no_room);
    const std::uint16_t sent = driver.used_waiting();
    EXPECT_LT(sent, 8U);
    EXPECT_EQ(tx.queue().state().next_available, sent);
    EXPECT_EQ(network.receive(0), frame);
    ASSERT_TRUE(tx.transmit(port.fd(0), tally).has_value());
    EXPECT_GT(driver.used_waiting(), sent);
    EXPECT_EQ(tally.read().dropped, 0U);
}

TEST_F(TxTest, flood_ends_a_turn) {
    for (int i = 0; i < 64; ++i) {
        offer("tiny"); // Dropped, which costs a turn as well.
    }
    EXPECT_EQ(GODWIT_MUST(tx.transmit(port.fd(0), tally)), TxQueue::Stop::turn_over);
}

} // namespace
} // namespace godwit::virtio
