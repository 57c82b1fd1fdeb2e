#include "vmm/console_port.h"

#include <sys/socket.h>

#include <unistd.h>

#include <array>

namespace godwit::vmm {
namespace {

/// A port on a loop, and clients that connect to it as `godwit console` does.
class ConsolePortTest : public testing::Test {
  protected:
    void SetUp() override {
        loop = GODWIT_MUST(sys::EventLoop::create());
        port = make_port();
        path = testing::TempDir() + "godwit_console_" + std::to_string(::getpid());
        ASSERT_TRUE(port->listen(path).has_value());
    }

    std::unique_ptr<ConsolePort> make_port() {
        return std::make_unique<ConsolePort>(*loop, [this](std::span<const std::byte> bytes) {
            const std::size_t taken = std::min(bytes.size(), room);
            typed.append(reinterpret_cast<const char*>(bytes.data()), taken);
            room -= taken;
            return taken;
        });
    }

    /// Serves everything that is ready.
    void serve() {
        for (int i = 0; i < 20; ++i) {
            ASSERT_TRUE(loop->run_once(std::chrono::milliseconds(1)).has_value());
        }
    }

    static std::string read_all(const sys::Fd& client) {
        std::array<char, 4096> chunk{};
        std::string text;
        for (;;) {
            const ssize_t n = ::recv(client.raw(), chunk.data(), chunk.size(), MSG_DONTWAIT);
            if (n <= 0) {
                return text;
            }
            text.append(chunk.data(), static_cast<std::size_t>(n));
        }
    }

    void print(const std::string& text) { port->write(std::as_bytes(std::span(text))); }

    std::unique_ptr<sys::EventLoop> loop;
    std::unique_ptr<ConsolePort> port;
    std::string path;
    std::string typed;
    std::size_t room = 1000;
};

TEST_F(ConsolePortTest, output_before_any_client_reaches_the_first) {
    print("boot line\n");
    serve();
    const sys::Fd client = GODWIT_MUST(sys::connect_stream(path));
    serve();
    EXPECT_EQ(read_all(client), "boot line\n");
}

TEST_F(ConsolePortTest, reconnecting_client_gets_exactly_what_it_missed) {
    {
        const sys::Fd client = GODWIT_MUST(sys::connect_stream(path));
        serve();
        print("one\n");
        serve();
        ASSERT_EQ(read_all(client), "one\n");
    }
    serve();
    print("two\n");
    serve();
    const sys::Fd client = GODWIT_MUST(sys::connect_stream(path));
    serve();
    EXPECT_EQ(read_all(client), "two\n");
}

TEST_F(ConsolePortTest, input_waits_until_the_guest_has_room) {
    room = 3;
    const sys::Fd client = GODWIT_MUST(sys::connect_stream(path));
    ASSERT_EQ(::send(client.raw(), "hello", 5, 0), 5);
    serve();
    EXPECT_EQ(typed, "hel");
    room = 10;
    port->input_ready();
    EXPECT_EQ(typed, "hello");
}

TEST_F(ConsolePortTest, backlog_over_its_limit_keeps_the_newest) {
    print(std::string(backlog_bytes_max, 'a'));
    print("tail");
    serve();
    EXPECT_EQ(port->dropped_bytes(), 4U);
    const ConsolePortState state = GODWIT_MUST(port->save());
    EXPECT_EQ(state.backlog.size(), backlog_bytes_max);
    EXPECT_TRUE(state.backlog.ends_with("tail"));
}

TEST_F(ConsolePortTest, output_while_frozen_is_left_for_whoever_saves) {
    port->freeze();
    print("late");
    serve();
    EXPECT_EQ(GODWIT_MUST(port->save()).backlog, "late");
    EXPECT_EQ(GODWIT_MUST(port->save()).backlog, "late");
}

TEST_F(ConsolePortTest, client_survives_the_change_of_owner_without_a_gap) {
    const sys::Fd client = GODWIT_MUST(sys::connect_stream(path));
    serve();
    print("old ");
    serve();
    port->freeze();
    print("between ");
    ConsolePortState state = GODWIT_MUST(port->save());
    port.reset();

    port = make_port();
    port->adopt(std::move(state));
    print("new");
    port->thaw();
    serve();
    EXPECT_EQ(read_all(client), "old between new");
    ASSERT_EQ(::send(client.raw(), "x", 1, 0), 1);
    serve();
    EXPECT_EQ(typed, "x");
}

} // namespace
} // namespace godwit::vmm
