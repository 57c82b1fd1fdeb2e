#include "sys/tap.h"

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <thread>

namespace godwit::sys {
namespace {

TEST(Tap, impossible_names_are_refused) {
    for (const char* name : {"", "a-name-too-long-for-linux", "a/b", "tap%d", "tap 0"}) {
        const auto tap = Tap::open(name, 1);
        ASSERT_FALSE(tap.has_value()) << name;
        EXPECT_EQ(tap.error().code(), ErrorCode::invalid_argument) << name;
    }
}

TEST(Tap, missing_interface_is_not_created_and_the_error_says_how) {
    const auto tap = Tap::open("gw-none", 2);
    ASSERT_FALSE(tap.has_value());
    EXPECT_EQ(tap.error().code(), ErrorCode::not_found);
    EXPECT_NE(tap.error().message().find("ip tuntap add dev gw-none mode tap multi_queue"),
              std::string::npos);
    EXPECT_EQ(::if_nametoindex("gw-none"), 0U);
}

TEST(Tap, numbers_of_queues_have_a_limit) {
    EXPECT_EQ(Tap::open("gw-none", 0).error().code(), ErrorCode::invalid_argument);
    EXPECT_EQ(Tap::open("gw-none", 9).error().code(), ErrorCode::invalid_argument);
}

TEST(Tap, adopting_what_is_no_tap_is_refused) {
    std::vector<Fd> fds;
    fds.push_back(GODWIT_MUST(open("/dev/null", O_RDWR))); // exists everywhere
    EXPECT_EQ(Tap::adopt(std::move(fds)).error().code(), ErrorCode::corrupt);
    EXPECT_EQ(Tap::adopt({}).error().code(), ErrorCode::corrupt);
}

TEST(Packets, empty_socket_would_block_and_a_closed_one_is_gone) {
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()),
              0);
    const Fd near(ends[0]);
    Fd far(ends[1]);
    std::array<char, 8> first{};
    std::array<char, 8> second{};
    const std::array<iovec, 2> room{
        {{.iov_base = first.data(), .iov_len = 8}, {.iov_base = second.data(), .iov_len = 8}}};
    errno = 0;
    EXPECT_EQ(read_packet(near, room).outcome, PacketOutcome::would_block);
    EXPECT_EQ(write_packet(far, room).bytes, 16U);
    EXPECT_EQ(read_packet(near, room).bytes, 16U);
    far.reset();
    EXPECT_EQ(read_packet(near, room).outcome, PacketOutcome::gone);
}

TEST(Packets, full_socket_would_block_whatever_errno_was_before) {
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()),
              0);
    const Fd near(ends[0]);
    const Fd far(ends[1]);
    std::vector<char> packet(60000);
    const std::array<iovec, 1> data{{{.iov_base = packet.data(), .iov_len = packet.size()}}};
    PacketResult result;
    for (int i = 0; i < 100 && result.outcome == PacketOutcome::done; ++i) {
        errno = 0;
        result = write_packet(near, data);
    }
    EXPECT_EQ(result.outcome, PacketOutcome::would_block);
}

/// A network namespace of its own for this thread, which has to end for it to go.
class TapOnHost : public ::testing::Test {
  protected:
    /// Runs `body` in a fresh network namespace, or skips the test and says why not.
    template <typename Body>
    void in_namespace(Body body) {
        std::string refused;
        std::thread([&] {
            if (::unshare(CLONE_NEWNET) != 0) {
                refused = std::string("no network namespace: ") + std::strerror(errno);
            } else if (::access("/dev/net/tun", R_OK | W_OK) != 0) {
                refused = std::string("/dev/net/tun: ") + std::strerror(errno);
            } else {
                body();
            }
        }).join();
        if (!refused.empty()) {
            GTEST_SKIP() << "real taps are not tested here: " << refused;
        }
    }
    /// What `ip tuntap add` does.
    static void make_tap(const char* name, int flags) {
        const Fd device = GODWIT_MUST(open("/dev/net/tun", O_RDWR)); // in_namespace() has looked
        ifreq request{};
        std::strncpy(request.ifr_name, name, IFNAMSIZ - 1);
        request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | flags);
        ASSERT_EQ(::ioctl(device.raw(), TUNSETIFF, &request), 0) << std::strerror(errno);
        ASSERT_EQ(::ioctl(device.raw(), TUNSETPERSIST, 1), 0);
    }
    static void set_up(const char* name) {
        const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        ifreq request{};
        std::strncpy(request.ifr_name, name, IFNAMSIZ - 1);
        request.ifr_flags = IFF_UP;
        ASSERT_EQ(::ioctl(socket.raw(), SIOCSIFFLAGS, &request), 0) << std::strerror(errno);
    }
    /// Sends a frame of the host through the interface, which brings it to the tap's reader.
    static void send_out_of(const char* name, std::size_t bytes) {
        const Fd socket(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
        sockaddr_ll to{};
        to.sll_family = AF_PACKET;
        to.sll_ifindex = static_cast<int>(::if_nametoindex(name));
        const std::vector<std::byte> frame(bytes, std::byte{0x5A});
        // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): how sockets take addresses.
        const auto* address = reinterpret_cast<const sockaddr*>(&to);
        ASSERT_EQ(::sendto(socket.raw(), frame.data(), bytes, 0, address, sizeof(to)),
                  static_cast<ssize_t>(bytes))
            << std::strerror(errno);
    }
};

TEST_F(TapOnHost, opens_once_and_moves_packets) {
    in_namespace([] {
        make_tap("gw-tap", 0);
        const Tap tap = GODWIT_MUST(Tap::open("gw-tap", 1)); // just made
        EXPECT_EQ(GODWIT_MUST(tap.name()), "gw-tap");
        EXPECT_EQ(Tap::open("gw-tap", 1).error().code(), ErrorCode::busy);
        EXPECT_TRUE(tap.set_offloads({.checksum = true, .tso4 = true, .tso6 = true, .ecn = true})
                        .has_value());
        std::array<std::byte, 100> packet{};
        const std::array<iovec, 1> data{{{.iov_base = packet.data(), .iov_len = packet.size()}}};
        EXPECT_EQ(write_packet(tap.queue(0), data).outcome, PacketOutcome::refused); // It is down.
        set_up("gw-tap");
        EXPECT_EQ(write_packet(tap.queue(0), data).outcome, PacketOutcome::done);
        send_out_of("gw-tap", 1000);
        std::array<std::byte, 2048> in{};
        const std::array<iovec, 1> room{{{.iov_base = in.data(), .iov_len = in.size()}}};
        PacketResult got;
        while (got.outcome == PacketOutcome::done && got.bytes != tap_header_bytes + 1000) {
            got = read_packet(tap.queue(0), room); // The kernel's own greetings may come first.
        }
        EXPECT_EQ(got.outcome, PacketOutcome::done);
    });
}

/// struct virtio_net_hdr; linux/virtio_net.h is no C++.
struct OffloadHeader {
    std::uint8_t flags = 1;    // needs a checksum
    std::uint8_t gso_type = 1; // TCP over IPv4
    std::uint16_t hdr_len = 54;
    std::uint16_t gso_size = 1448;
    std::uint16_t csum_start = 34;
    std::uint16_t csum_offset = 16;
};
static_assert(sizeof(OffloadHeader) == 10);

/// A TCP segment of `payload` bytes, as a sender hands it to an interface that can cut it itself:
/// virtio header, Ethernet, IPv4, TCP.
std::vector<std::uint8_t> large_segment(std::size_t payload) {
    constexpr std::size_t headers = 14 + 20 + 20;
    const auto total = static_cast<std::uint16_t>(40 + payload);
    std::vector<std::uint8_t> packet(sizeof(OffloadHeader) + headers + payload, 0x5A);
    const OffloadHeader offload;
    std::memcpy(packet.data(), &offload, sizeof(offload));
    const std::array<std::uint8_t, headers> bytes{2,
                                                  0,
                                                  0,
                                                  0,
                                                  0,
                                                  1,
                                                  2,
                                                  0,
                                                  0,
                                                  0,
                                                  0,
                                                  2,
                                                  8,
                                                  0, // Ethernet, IPv4 follows
                                                  0x45,
                                                  0,
                                                  static_cast<std::uint8_t>(total >> 8U),
                                                  static_cast<std::uint8_t>(total & 0xFFU),
                                                  0,
                                                  1,
                                                  0x40,
                                                  0,
                                                  64,
                                                  6,
                                                  0,
                                                  0,
                                                  10,
                                                  0,
                                                  0,
                                                  1,
                                                  10,
                                                  0,
                                                  0,
                                                  2, // IPv4, TCP follows
                                                  0x10,
                                                  0,
                                                  0x20,
                                                  0,
                                                  0,
                                                  0,
                                                  0,
                                                  1,
                                                  0,
                                                  0,
                                                  0,
                                                  1,
                                                  0x50,
                                                  0x10,
                                                  0xFF,
                                                  0xFF,
                                                  0,
                                                  0,
                                                  0,
                                                  0};
    std::memcpy(packet.data() + sizeof(offload), bytes.data(), bytes.size());
    return packet;
}

/// Sends it out of the interface and reads one packet from the tap; its bytes with header.
std::size_t first_read_of_segment(const Tap& tap, const char* name, std::size_t payload) {
    const Fd socket(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
    const int on = 1;
    EXPECT_EQ(::setsockopt(socket.raw(), SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)), 0);
    sockaddr_ll to{};
    to.sll_family = AF_PACKET;
    to.sll_protocol = htons(ETH_P_IP);
    to.sll_ifindex = static_cast<int>(::if_nametoindex(name));
    const auto packet = large_segment(payload);
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): how sockets take addresses.
    const auto* address = reinterpret_cast<const sockaddr*>(&to);
    EXPECT_EQ(::sendto(socket.raw(), packet.data(), packet.size(), 0, address, sizeof(to)),
              static_cast<ssize_t>(packet.size()))
        << std::strerror(errno);
    std::vector<std::byte> in(70'000);
    const std::array<iovec, 1> room{{{.iov_base = in.data(), .iov_len = in.size()}}};
    PacketResult got = read_packet(tap.queue(0), room);
    while (got.outcome == PacketOutcome::done && in[tap_header_bytes + 12] != std::byte{8}) {
        got = read_packet(tap.queue(0), room); // A greeting of the kernel's, IPv6.
    }
    return got.bytes;
}

TEST_F(TapOnHost, large_segments_pass_whole_only_to_readers_that_take_them) {
    in_namespace([] {
        make_tap("gw-tso", 0);
        const Tap tap = GODWIT_MUST(Tap::open("gw-tso", 1)); // just made
        set_up("gw-tso");
        GODWIT_MUST(tap.set_offloads(
            {.checksum = true, .tso4 = true, .tso6 = false, .ecn = false})); // it is a tap
        EXPECT_EQ(first_read_of_segment(tap, "gw-tso", 60'000), tap_header_bytes + 54 + 60'000);
        GODWIT_MUST(tap.set_offloads({})); // as above
        EXPECT_EQ(first_read_of_segment(tap, "gw-tso", 60'000), tap_header_bytes + 54 + 1448);
    });
}

TEST_F(TapOnHost, queues_are_switched_and_descriptors_change_hands) {
    in_namespace([] {
        make_tap("gw-mq", IFF_MULTI_QUEUE);
        Tap first = GODWIT_MUST(Tap::open("gw-mq", 4)); // just made
        EXPECT_TRUE(first.set_active_queues(1).has_value());
        EXPECT_TRUE(first.set_active_queues(1).has_value());
        EXPECT_TRUE(first.set_active_queues(3).has_value());
        EXPECT_FALSE(first.set_active_queues(5).has_value());
        // A switched-off queue is quiet: no error event that a loop would spin on.
        pollfd quiet{.fd = first.queue(3).raw(), .events = 0, .revents = 0};
        EXPECT_EQ(::poll(&quiet, 1, 0), 0);
        const Tap second = GODWIT_MUST(Tap::adopt(std::move(first).take())); // they are taps
        EXPECT_EQ(second.queues(), 4U);
        EXPECT_TRUE(second.set_active_queues(4).has_value());
    });
}

TEST_F(TapOnHost, wrong_number_of_queues_is_explained) {
    in_namespace([] {
        make_tap("gw-one", 0);
        const auto tap = Tap::open("gw-one", 2);
        ASSERT_FALSE(tap.has_value());
        EXPECT_EQ(tap.error().code(), ErrorCode::invalid_argument);
        EXPECT_NE(tap.error().message().find("multi_queue"), std::string::npos);
        make_tap("gw-mq", IFF_MULTI_QUEUE);
        EXPECT_TRUE(Tap::open("gw-mq", 1).has_value());
    });
}

TEST_F(TapOnHost, deleted_interface_is_gone) {
    in_namespace([] {
        make_tap("gw-gone", 0);
        const Tap tap = GODWIT_MUST(Tap::open("gw-gone", 1)); // just made
        ASSERT_EQ(::system("ip link delete gw-gone"), 0);
        std::array<std::byte, 100> packet{};
        const std::array<iovec, 1> data{{{.iov_base = packet.data(), .iov_len = packet.size()}}};
        EXPECT_EQ(read_packet(tap.queue(0), data).outcome, PacketOutcome::gone);
        EXPECT_EQ(write_packet(tap.queue(0), data).outcome, PacketOutcome::gone);
    });
}

} // namespace
} // namespace godwit::sys
