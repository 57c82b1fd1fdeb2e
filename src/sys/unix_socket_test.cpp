#include "sys/unix_socket.h"

#include <sys/stat.h>

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>

namespace godwit::sys {
namespace {

constexpr std::chrono::milliseconds at_once{0};
constexpr std::chrono::milliseconds long_enough{5000};

TEST(MessageSocket, send_with_descriptor_arrives_as_the_same_file) {
    auto [left, right] = GODWIT_MUST(MessageSocket::pair());
    const Fd memory = GODWIT_MUST(create_memfd("test", 4096));
    const Fd* const passed[] = {&memory};
    ASSERT_TRUE(left.send("take this", passed).has_value());
    const Message message = GODWIT_MUST(right.receive(long_enough));
    ASSERT_EQ(message.bytes, "take this");
    ASSERT_EQ(message.fds.size(), 1U);
    struct stat sent{};
    struct stat received{};
    ASSERT_EQ(fstat(memory.raw(), &sent), 0);
    ASSERT_EQ(fstat(message.fds[0].raw(), &received), 0);
    EXPECT_EQ(sent.st_ino, received.st_ino);
    EXPECT_NE(fcntl(message.fds[0].raw(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST(MessageSocket, receive_closed_peer_says_so) {
    auto [left, right] = GODWIT_MUST(MessageSocket::pair());
    {
        const Fd closed = std::move(left).take();
    }
    const auto message = right.receive(long_enough);
    ASSERT_FALSE(message.has_value());
    EXPECT_EQ(message.error().code(), ErrorCode::peer_closed);
}

TEST(MessageSocket, receive_nothing_times_out) {
    auto [left, right] = GODWIT_MUST(MessageSocket::pair());
    const auto message = right.receive(at_once);
    ASSERT_FALSE(message.has_value());
    EXPECT_EQ(message.error().code(), ErrorCode::timeout);
}

TEST(MessageSocket, send_over_the_limit_is_refused) {
    auto [left, right] = GODWIT_MUST(MessageSocket::pair());
    const auto sent = left.send(std::string(message_bytes_max + 1, 'x'));
    ASSERT_FALSE(sent.has_value());
    EXPECT_EQ(sent.error().code(), ErrorCode::resource_exhausted);
}

TEST(Listener, second_listener_takes_the_path_over) {
    const std::string path = testing::TempDir() + "godwit_listener_" + std::to_string(::getpid());
    auto first =
        std::make_unique<Listener>(GODWIT_MUST(Listener::create(path, SocketKind::messages)));
    const Listener second = GODWIT_MUST(Listener::create(path, SocketKind::messages));
    first.reset();
    EXPECT_TRUE(std::filesystem::exists(path));
    const MessageSocket client = GODWIT_MUST(MessageSocket::connect(path));
    EXPECT_TRUE(second.accept().has_value());
    const auto peer = client.peer();
    ASSERT_TRUE(peer.has_value());
    EXPECT_EQ(peer->pid, ::getpid());
}

} // namespace
} // namespace godwit::sys
