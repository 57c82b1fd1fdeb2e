#include "block/testing/temporary_image.h"
#include "doors/nbd/server.h"
#include "sys/clock.h"
#include "sys/stream.h"

#include <unistd.h>

#include <thread>

namespace godwit::doors::nbd {
namespace {

constexpr std::uint64_t disk_bytes = 8 * mib;

/// A client by the book, or not.
class Client {
  public:
    explicit Client(const std::string& path)
        : socket_(GODWIT_MUST(sys::connect_stream(path))) {} // the server listens
    void send(const std::vector<std::byte>& bytes) {
        discard(sys::write_all(socket_, bytes), "the server may have closed the connection");
    }
    /// So many bytes, or fewer at the end of the connection.
    std::vector<std::byte> receive(std::size_t bytes) {
        std::vector<std::byte> got(bytes);
        std::size_t at = 0;
        while (at < bytes) {
            const auto more = sys::read_some(socket_, std::span(got).subspan(at));
            if (!more.has_value() || *more == 0) {
                break;
            }
            at += *more;
        }
        got.resize(at);
        return got;
    }
    bool closed() { return receive(1).empty(); }
    /// To the transmission phase, with simple or structured replies.
    void negotiate(ReplyForm form) {
        EXPECT_EQ(receive(18).size(), 18U);
        std::vector<std::byte> bytes;
        put(bytes, std::uint32_t{3});
        if (form == ReplyForm::structured) {
            add_option(bytes, Option::structured_reply, {});
            std::vector<std::byte> contexts;
            put(contexts, std::uint32_t{0}); // the export without a name
            put(contexts, std::uint32_t{1});
            put(contexts, static_cast<std::uint32_t>(allocation_context.size()));
            put(contexts, allocation_context);
            add_option(bytes, Option::set_meta_context, contexts);
        }
        add_option(bytes, Option::export_name, {});
        send(bytes);
        receive(form == ReplyForm::structured ? 20U + 20 + 4 + allocation_context.size() + 20 : 0U);
        EXPECT_EQ(receive(10).size(), 10U);
    }
    void command(const Command& command, const std::vector<std::byte>& payload = {}) {
        std::vector<std::byte> bytes;
        put(bytes, magic_request);
        put(bytes, command.flags);
        put(bytes, static_cast<std::uint16_t>(command.type));
        put(bytes, command.cookie);
        put(bytes, command.offset);
        put(bytes, command.bytes);
        bytes.insert(bytes.end(), payload.begin(), payload.end());
        send(bytes);
    }
    /// The failure in a simple reply to `cookie`.
    Failure simple_reply(std::uint64_t cookie) {
        const auto bytes = receive(16);
        if (bytes.size() != 16) {
            ADD_FAILURE() << "the connection was closed";
            return Failure::io;
        }
        EXPECT_EQ(get<std::uint32_t>(bytes, 0), magic_simple_reply);
        EXPECT_EQ(get<std::uint64_t>(bytes, 8), cookie);
        return static_cast<Failure>(get<std::uint32_t>(bytes, 4));
    }
    Failure run(const Command& what, const std::vector<std::byte>& payload = {}) {
        command(what, payload);
        return simple_reply(what.cookie);
    }

  private:
    static void
    add_option(std::vector<std::byte>& to, Option kind, const std::vector<std::byte>& data) {
        put(to, magic_option);
        put(to, static_cast<std::uint32_t>(kind));
        put(to, static_cast<std::uint32_t>(data.size()));
        to.insert(to.end(), data.begin(), data.end());
    }
    sys::Fd socket_;
};

struct NbdServerTest : ::testing::Test {
    void SetUp() override { open({}); }
    void open(DiskOptions options) {
        server.reset();
        disk.reset();
        options.path = image.path();
        options.direct = false;
        disk = GODWIT_MUST(ExportedDisk::open(options, sys::system_clock())); // an image is there
        path = ::testing::TempDir() + "nbd." + std::to_string(::getpid());
        server = GODWIT_MUST(Server::create(path, *disk, "disk")); // a socket is to be had
    }
    NbdServerTest()
        : image(GODWIT_MUST( // there is room for a sparse file
              block::testing::TemporaryImage::create(::testing::TempDir(), disk_bytes))) {}
    std::unique_ptr<Client> client(ReplyForm form = ReplyForm::simple) {
        auto made = std::make_unique<Client>(path);
        made->negotiate(form);
        return made;
    }
    static Command make(CommandType type, std::uint64_t offset, std::uint32_t bytes) {
        static std::uint64_t cookie = 0;
        return {.type = type, .flags = 0, .cookie = ++cookie, .offset = offset, .bytes = bytes};
    }
    static std::vector<std::byte> filled(std::size_t bytes, int value) {
        return std::vector<std::byte>(bytes, static_cast<std::byte>(value));
    }
    block::testing::TemporaryImage image;
    std::unique_ptr<ExportedDisk> disk;
    std::string path;
    std::unique_ptr<Server> server;
};

TEST_F(NbdServerTest, WhatOneClientWritesAnotherReads) {
    const auto writer = client();
    const auto reader = client();
    EXPECT_EQ(writer->run(make(CommandType::write, 4096, 8192), filled(8192, 7)), Failure::none);
    EXPECT_EQ(reader->run(make(CommandType::read, 4096, 8192)), Failure::none);
    EXPECT_EQ(reader->receive(8192), filled(8192, 7));
    Command zeroes = make(CommandType::write_zeroes, 4096, 4096);
    zeroes.flags = command_flag::no_hole | command_flag::fua;
    EXPECT_EQ(writer->run(zeroes), Failure::none);
    EXPECT_EQ(writer->run(make(CommandType::flush, 0, 0)), Failure::none);
    EXPECT_EQ(reader->run(make(CommandType::read, 4096, 8192)), Failure::none);
    EXPECT_EQ(reader->receive(4096), filled(4096, 0));
    EXPECT_EQ(reader->receive(4096), filled(4096, 7));
    EXPECT_EQ(writer->run(make(CommandType::trim, 0, 8192)), Failure::none);
}

TEST_F(NbdServerTest, ManyLargeReadsAtOnceAllCome) {
    const auto many = client();
    constexpr std::uint32_t bytes = 1U << 20U;
    constexpr std::uint32_t count = 400; // beyond the limits of commands and of their memory
    EXPECT_EQ(many->run(make(CommandType::write, 0, bytes), filled(bytes, 9)), Failure::none);
    // Beside the replies: the server leaves commands in the socket, which does not hold them all.
    const std::jthread sender([&many] {
        for (std::uint32_t i = 0; i < count; ++i) {
            Command read = make(CommandType::read, 0, bytes);
            read.cookie = 5;
            many->command(read);
        }
    });
    for (std::uint32_t i = 0; i < count; ++i) {
        ASSERT_EQ(many->simple_reply(5), Failure::none);
        ASSERT_EQ(many->receive(bytes).size(), bytes);
    }
}

TEST_F(NbdServerTest, RefusesWhatTheDiskHasNot) {
    const auto wrong = client();
    EXPECT_EQ(wrong->run(make(CommandType::read, disk_bytes, 512)), Failure::invalid);
    EXPECT_EQ(wrong->run(make(CommandType::read, disk_bytes - 512, 1024)), Failure::invalid);
    EXPECT_EQ(wrong->run(make(CommandType::read, ~0ULL - 511, 1024)), Failure::invalid);
    EXPECT_EQ(wrong->run(make(CommandType::read, 1, 512)), Failure::invalid);
    EXPECT_EQ(wrong->run(make(CommandType::read, 0, 0)), Failure::invalid);
    EXPECT_EQ(wrong->run(make(CommandType::read, 0, 1U << 31U)), Failure::invalid);
    EXPECT_EQ(wrong->run(make(static_cast<CommandType>(99), 0, 512)), Failure::invalid);
    EXPECT_EQ(wrong->run(make(CommandType::block_status, 0, 512)), Failure::invalid);
    EXPECT_EQ(wrong->run(make(CommandType::write, disk_bytes, 512), filled(512, 1)),
              Failure::no_space);
    Command strange = make(CommandType::read, 0, 512);
    strange.flags = 0x8000;
    EXPECT_EQ(wrong->run(strange), Failure::invalid);
    EXPECT_EQ(wrong->run(make(CommandType::flush, 0, 0)), Failure::none); // still there
}

TEST_F(NbdServerTest, AReadOnlyDiskIsNotChanged) {
    open({.read_only = true});
    const auto reader = client();
    EXPECT_EQ(reader->run(make(CommandType::write, 0, 512), filled(512, 1)),
              Failure::not_permitted);
    EXPECT_EQ(reader->run(make(CommandType::write_zeroes, 0, 512)), Failure::not_permitted);
    EXPECT_EQ(reader->run(make(CommandType::trim, 0, 512)), Failure::not_permitted);
    EXPECT_EQ(reader->run(make(CommandType::read, 0, 512)), Failure::none);
}

TEST_F(NbdServerTest, StructuredRepliesAndBlockStatus) {
    const auto modern = client(ReplyForm::structured);
    modern->command(make(CommandType::write, 65536, 4096), filled(4096, 3));
    auto head = modern->receive(20);
    EXPECT_EQ(get<std::uint32_t>(head, 0), magic_structured_reply);
    EXPECT_EQ(get<std::uint16_t>(head, 4), chunk_done);
    modern->command(make(CommandType::read, 65536, 512));
    head = modern->receive(28);
    EXPECT_EQ(get<std::uint16_t>(head, 6), chunk_offset_data);
    EXPECT_EQ(get<std::uint32_t>(head, 16), 8U + 512);
    EXPECT_EQ(get<std::uint64_t>(head, 20), 65536U);
    EXPECT_EQ(modern->receive(512), filled(512, 3));
    modern->command(make(CommandType::read, disk_bytes, 512));
    head = modern->receive(26);
    EXPECT_EQ(get<std::uint16_t>(head, 6), chunk_error);
    modern->command(make(CommandType::block_status, 0, disk_bytes));
    head = modern->receive(24);
    EXPECT_EQ(get<std::uint16_t>(head, 6), chunk_block_status);
    const auto extents = modern->receive(get<std::uint32_t>(head, 16) - 4);
    ASSERT_EQ(extents.size(), 24U); // hole, data, hole
    EXPECT_EQ(get<std::uint32_t>(extents, 0), 65536U);
    EXPECT_EQ(get<std::uint32_t>(extents, 4), state_hole | state_zero);
    EXPECT_EQ(get<std::uint32_t>(extents, 8), 4096U);
    EXPECT_EQ(get<std::uint32_t>(extents, 12), 0U);
    Command one = make(CommandType::block_status, 0, disk_bytes);
    one.flags = command_flag::request_one;
    modern->command(one);
    head = modern->receive(24);
    EXPECT_EQ(get<std::uint32_t>(head, 16), 4U + 8);
}

TEST_F(NbdServerTest, NonsenseEndsTheConnectionOnly) {
    Client first(path);
    first.send(filled(64, 0xff));
    first.receive(18);
    EXPECT_TRUE(first.closed());
    const auto second = client();
    second->send(filled(64, 0xff));
    EXPECT_TRUE(second->closed());
    const auto third = client();
    third->command(make(CommandType::write, 0, 0xffffffff));
    EXPECT_TRUE(third->closed());
    const auto fourth = client();
    fourth->command(make(CommandType::write, 0, 4096), filled(100, 1)); // the rest never comes
    const auto fifth = client();
    EXPECT_EQ(fifth->run(make(CommandType::flush, 0, 0)), Failure::none);
}

TEST_F(NbdServerTest, ADisconnectIsAnsweredByTheEnd) {
    const auto leaving = client();
    leaving->command(make(CommandType::write, 0, 512), filled(512, 5));
    leaving->command(make(CommandType::disconnect, 0, 0));
    EXPECT_EQ(leaving->receive(16).size(), 16U);
    EXPECT_TRUE(leaving->closed());
}

TEST_F(NbdServerTest, TooManyClientsAreTurnedAway) {
    std::vector<std::unique_ptr<Client>> many;
    for (std::size_t i = 0; i < clients_max; ++i) {
        many.push_back(client());
    }
    Client late(path);
    EXPECT_TRUE(late.closed());
    EXPECT_EQ(many[0]->run(make(CommandType::flush, 0, 0)), Failure::none);
}

TEST_F(NbdServerTest, StopsWithClientsAndStopsAgain) {
    const auto idle = client();
    Client negotiating(path);
    negotiating.receive(18);
    server->stop();
    EXPECT_TRUE(idle->closed());
    EXPECT_TRUE(negotiating.closed());
    server->stop();
}

TEST_F(NbdServerTest, ListensOnTcpAndSaysWhere) {
    const auto tcp = Server::create("127.0.0.1:0", *disk, "disk");
    ASSERT_TRUE(tcp.has_value());
    EXPECT_EQ((*tcp)->uri().substr(0, 16), "nbd://127.0.0.1:");
    EXPECT_FALSE((*tcp)->uri().ends_with(":0/disk"));
    EXPECT_FALSE(Server::create("nonsense", *disk, "").has_value());
    EXPECT_FALSE(Server::create("127.0.0.1:nonsense", *disk, "").has_value());
}

} // namespace
} // namespace godwit::doors::nbd
