#include "sys/io_thread.h"
#include "virtio/net/net_device.h"
#include "virtio/net/net_spec.h"
#include "virtio/testing/guest_driver.h"
#include "virtio/testing/socket_port.h"

#include <array>

namespace godwit::virtio {
namespace {

using testing::bytes_of;
using testing::GuestDriver;
using testing::SocketNetwork;
using testing::SocketPort;

constexpr MacAddress mac{0x52, 0x54, 0, 0x12, 0x34, 0x56};
constexpr std::uint64_t usual_features =
    feature_version_1 | net_f_mrg_rxbuf | net_f_status | net_f_ctrl_vq | net_f_guest_announce;

std::string text_of(const std::vector<std::byte>& bytes) {
    std::string text;
    for (const std::byte byte : bytes) {
        text.push_back(std::to_integer<char>(byte));
    }
    return text;
}

struct NetDeviceTest : ::testing::Test {
    std::unique_ptr<NetDevice> make(std::size_t pairs) {
        auto port = std::make_unique<SocketPort>(network, pairs);
        successor_port = port->duplicate();
        auto made = GODWIT_MUST(NetDevice::create(args(std::move(port)))); // 1..8 pairs
        driver = std::make_unique<GuestDriver>(made->queue_sizes().size());
        driver->attach(*made);
        return made;
    }
    NetDevice::Args args(std::unique_ptr<NetPort> port) {
        return {.instance = 3, .mac = mac, .mtu = {}, .port = std::move(port), .loop = &io->loop()};
    }
    std::unique_ptr<NetDevice> make_working(std::size_t pairs, std::uint64_t features) {
        auto made = make(pairs);
        GODWIT_MUST(driver->activate(*made, features)); // queues of the fake are sound
        made->wake();
        return made;
    }
    std::uint16_t config_status(NetDevice& of) {
        std::array<std::byte, 2> bytes{};
        of.read_config(6, bytes);
        return static_cast<std::uint16_t>(std::to_integer<unsigned>(bytes[0]) |
                                          std::to_integer<unsigned>(bytes[1]) << 8U);
    }
    /// Sends a control command; the device's answer.
    std::uint8_t command(std::size_t queue, std::initializer_list<std::uint8_t> bytes) {
        std::vector<std::byte> request;
        for (const std::uint8_t byte : bytes) {
            request.push_back(std::byte{byte});
        }
        const auto offered = driver->queue(queue).chain().readable(request).writable(1).offer();
        EXPECT_TRUE(driver->wait_used(queue).has_value());
        return std::to_integer<std::uint8_t>(
            driver->queue(queue).read(offered.writable_at(), 1)[0]);
    }
    std::string received_frame(std::size_t queue, const testing::Offered& offered) {
        const auto used = driver->wait_used(queue);
        if (!used.has_value() || used->head != offered.head) {
            return "nothing, or another buffer";
        }
        return text_of(driver->queue(queue).read(offered.writable_at(), used->written))
            .substr(net_header_bytes);
    }
    void send_frame(std::size_t queue, const std::string& frame) {
        driver->queue(queue)
            .chain()
            .readable(bytes_of(std::string(net_header_bytes, '\0') + frame))
            .offer();
    }

    std::unique_ptr<sys::IoThread> io = testing::make_io_thread();
    SocketNetwork network;
    std::unique_ptr<SocketPort> successor_port;
    std::unique_ptr<GuestDriver> driver;
};

TEST_F(NetDeviceTest, config_shows_mac_link_and_pairs) {
    const auto device = make(4);
    std::array<std::byte, 14> config{};
    device->read_config(0, config);
    EXPECT_EQ(std::to_integer<int>(config[0]), 0x52);
    EXPECT_EQ(std::to_integer<int>(config[5]), 0x56);
    EXPECT_EQ(std::to_integer<int>(config[6]), net_s_link_up);
    EXPECT_EQ(std::to_integer<int>(config[8]), 4);
    EXPECT_EQ(std::to_integer<int>(config[13]), 0);
    EXPECT_EQ(device->queue_sizes().size(), 9U);
    EXPECT_NE(device->features() & net_f_mq, 0U);
}

TEST_F(NetDeviceTest, packets_cross_in_both_directions) {
    const auto device = make_working(1, usual_features);
    const auto buffer = driver->queue(0).chain().writable(2048).offer();
    network.send(0, "a frame for the guest");
    EXPECT_EQ(received_frame(0, buffer), "a frame for the guest");
    send_frame(1, "a frame from the guest");
    EXPECT_EQ(network.receive(0), "a frame from the guest");
    EXPECT_TRUE(driver->wait_used(1).has_value());
    EXPECT_EQ(device->counters().received.packets, 1U);
    EXPECT_EQ(device->counters().sent.packets, 1U);
}

TEST_F(NetDeviceTest, buffers_offered_late_get_what_waited) {
    const auto device = make_working(1, usual_features);
    network.send(0, "early frame of the net");
    const auto buffer = driver->queue(0).chain().writable(2048).offer();
    EXPECT_EQ(received_frame(0, buffer), "early frame of the net");
}

TEST_F(NetDeviceTest, full_port_is_served_again_when_there_is_room) {
    const auto device = make_working(1, usual_features);
    const std::string frame(60000, 'x');
    for (int i = 0; i < 8; ++i) {
        send_frame(1, frame);
    }
    for (int i = 0; i < 8; ++i) {
        ASSERT_TRUE(network.receive(0) == frame)
            << "packet " << i << ", sent " << device->counters().sent.packets;
    }
    EXPECT_EQ(device->counters().sent.dropped, 0U);
}

TEST_F(NetDeviceTest, packet_that_never_fits_is_dropped_and_the_next_one_comes) {
    const auto device = make_working(1, usual_features);
    const auto buffer = driver->queue(0).chain().writable(200).offer();
    network.send(0, std::string(1000, 'x'));
    network.send(0, "a frame that fits");
    EXPECT_EQ(received_frame(0, buffer), "a frame that fits");
    EXPECT_EQ(device->counters().received.dropped, 1U);
}

TEST_F(NetDeviceTest, at_rest_nothing_moves_and_waking_makes_up_for_it) {
    const auto device = make_working(1, usual_features);
    device->quiesce();
    device->quiesce();
    const auto buffer = driver->queue(0).chain().writable(2048).offer();
    network.send(0, "while it is at rest");
    send_frame(1, "sent while it is at rest");
    EXPECT_EQ(device->queue_states().at(0)->next_available, 0U);
    EXPECT_EQ(device->counters().sent.packets, 0U);
    device->wake();
    EXPECT_EQ(received_frame(0, buffer), "while it is at rest");
    EXPECT_EQ(network.receive(0), "sent while it is at rest");
}

TEST_F(NetDeviceTest, successor_goes_on_where_the_first_stopped) {
    auto first = make_working(1, usual_features);
    const auto small = driver->queue(0).chain().writable(600).offer();
    network.send(0, std::string(1000, 'a')); // Half of it fits: held, and part of the state.
    send_frame(1, "through the first device");
    EXPECT_EQ(network.receive(0), "through the first device");
    first->quiesce();
    const auto section = std::get<state::Section>(GODWIT_MUST(first->save()));
    const auto states = first->queue_states();
    first.reset();

    auto second = GODWIT_MUST(NetDevice::restore(args(std::move(successor_port)), section));
    driver->attach(*second);
    GODWIT_MUST(driver->activate(*second, usual_features, states)); // saved by our own device
    EXPECT_EQ(std::get<state::Section>(GODWIT_MUST(second->save())).payload, section.payload);
    const auto more = driver->queue(0).chain().writable(600).offer();
    second->wake();
    const auto used = driver->wait_used(0);
    const auto rest = driver->wait_used(0);
    ASSERT_TRUE(used.has_value() && rest.has_value());
    EXPECT_EQ(used->head, small.head);
    EXPECT_EQ(rest->head, more.head);
    EXPECT_EQ(used->written + rest->written, 1000 + net_header_bytes);
    send_frame(1, "through the second device");
    EXPECT_EQ(network.receive(0), "through the second device");
}

TEST_F(NetDeviceTest, announcement_is_shown_until_acknowledged) {
    const auto device = make_working(1, usual_features);
    device->announce();
    EXPECT_TRUE(driver->host().wait_for_config(1));
    EXPECT_EQ(config_status(*device), net_s_link_up | net_s_announce);
    EXPECT_EQ(command(2, {net_ctrl_announce, net_ctrl_announce_ack}), net_ok);
    EXPECT_EQ(config_status(*device), net_s_link_up);
}

TEST_F(NetDeviceTest, pending_announcement_is_told_again_by_the_successor) {
    auto first = make_working(1, usual_features);
    first->announce();
    first->quiesce();
    const auto section = std::get<state::Section>(GODWIT_MUST(first->save()));
    const auto states = first->queue_states();
    auto second = GODWIT_MUST(NetDevice::restore(args(std::move(successor_port)), section));
    driver->attach(*second);
    ASSERT_TRUE(driver->activate(*second, usual_features, states).has_value());
    const std::uint32_t before = driver->host().config_notices();
    second->wake();
    EXPECT_EQ(driver->host().config_notices(), before + 1);
    EXPECT_EQ(config_status(*second), net_s_link_up | net_s_announce);
}

TEST_F(NetDeviceTest, announcement_without_the_feature_is_left_out) {
    const auto device = make_working(1, usual_features & ~net_f_guest_announce);
    device->announce();
    EXPECT_EQ(driver->host().config_notices(), 0U);
    EXPECT_EQ(config_status(*device), net_s_link_up);
}

TEST_F(NetDeviceTest, second_pair_receives_once_the_driver_asks_for_it) {
    const auto device = make_working(2, usual_features | net_f_mq);
    EXPECT_EQ(network.active_pairs, 1U);
    const auto buffer = driver->queue(2).chain().writable(2048).offer();
    network.send(1, "on the second pair");
    EXPECT_EQ(command(4, {net_ctrl_mq, net_ctrl_mq_vq_pairs_set, 2, 0}), net_ok);
    EXPECT_EQ(network.active_pairs, 2U);
    EXPECT_EQ(received_frame(2, buffer), "on the second pair");
}

TEST_F(NetDeviceTest, without_multiqueue_the_control_queue_is_the_third) {
    const auto device = make_working(2, usual_features);
    EXPECT_EQ(command(2, {net_ctrl_announce, net_ctrl_announce_ack}), net_ok);
}

TEST_F(NetDeviceTest, commands_that_make_no_sense_are_refused) {
    const auto device = make_working(2, usual_features | net_f_mq);
    EXPECT_EQ(command(4, {net_ctrl_mq, net_ctrl_mq_vq_pairs_set, 0, 0}), net_err);
    EXPECT_EQ(command(4, {net_ctrl_mq, net_ctrl_mq_vq_pairs_set, 3, 0}), net_err);
    EXPECT_EQ(command(4, {net_ctrl_mq, net_ctrl_mq_vq_pairs_set, 1}), net_err);
    EXPECT_EQ(command(4, {99, 0}), net_err);
    EXPECT_EQ(command(4, {1}), net_err);
    EXPECT_EQ(driver->host().resets_asked(), 0U);
}

TEST_F(NetDeviceTest, offloads_follow_the_negotiated_features) {
    const auto device =
        make_working(1, usual_features | net_f_guest_csum | net_f_guest_tso4 | net_f_guest_ecn);
    EXPECT_EQ(network.offloads,
              (sys::TapOffloads{.checksum = true, .tso4 = true, .tso6 = false, .ecn = true}));
}

TEST_F(NetDeviceTest, broken_rule_asks_for_a_reset_and_reset_heals) {
    const auto device = make_working(1, usual_features);
    driver->queue(0).chain().writable(4).offer();
    EXPECT_TRUE(driver->host().wait_for_reset_asked());
    device->reset();
    auto again = std::make_unique<GuestDriver>(3);
    again->attach(*device);
    ASSERT_TRUE(again->activate(*device, usual_features).has_value());
    const auto buffer = again->queue(0).chain().writable(2048).offer();
    network.send(0, "after the reset");
    ASSERT_TRUE(again->wait_used(0).has_value());
    EXPECT_EQ(again->host().resets_asked(), 0U);
}

TEST_F(NetDeviceTest, lost_port_takes_the_link_down) {
    const auto device = make_working(1, usual_features);
    successor_port.reset();
    network.far[0].reset();
    EXPECT_TRUE(driver->host().wait_for_config(1));
    EXPECT_EQ(config_status(*device), 0U);
}

TEST_F(NetDeviceTest, packets_that_waited_for_a_lost_port_are_dropped) {
    constexpr int packets = 8;
    const auto device = make_working(1, usual_features);
    for (int i = 0; i < packets; ++i) {
        send_frame(1, std::string(60000, 'x')); // More than the port has room for.
    }
    successor_port.reset();
    network.far[0].reset();
    for (int i = 0; i < packets; ++i) {
        ASSERT_TRUE(driver->wait_used(1).has_value()) << "packet " << i;
    }
    EXPECT_GT(device->counters().sent.dropped, 0U);
    send_frame(1, "a later frame");
    EXPECT_TRUE(driver->wait_used(1).has_value());
}

TEST_F(NetDeviceTest, restore_refuses_another_machine_and_cut_sections) {
    const auto device = make(1);
    auto section = std::get<state::Section>(GODWIT_MUST(device->save()));
    auto other = args(successor_port->duplicate());
    other.mac[5] = 1;
    EXPECT_FALSE(NetDevice::restore(std::move(other), section).has_value());
    EXPECT_TRUE(NetDevice::restore(args(successor_port->duplicate()), section).has_value());
    const std::string whole = section.payload;
    for (std::size_t bytes = 0; bytes < whole.size(); ++bytes) {
        section.payload = whole.substr(0, bytes);
        EXPECT_FALSE(NetDevice::restore(args(successor_port->duplicate()), section).has_value());
    }
}

} // namespace
} // namespace godwit::virtio
