// Doors whose users go over to other doors of the same image, as between two processes: through the
// saved sections and descriptors.

#include "block/testing/temporary_image.h"
#include "doors/exchange/export_state.h"
#include "doors/nbd/server.h"
#include "doors/testing/front_end.h"
#include "doors/vhost/door.h"
#include "sys/clock.h"
#include "sys/stream.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <functional>

namespace godwit::doors::exchange {
namespace {

using namespace std::chrono_literals;
using doors::testing::FrontEnd;
using virtio::testing::DriverQueue;

constexpr std::uint64_t disk_bytes = 1 * mib;
constexpr std::uint64_t features = virtio::feature_version_1 | virtio::blk_feature::flush;

/// One process's share: the disk and its doors.
struct Side {
    std::unique_ptr<ExportedDisk> disk;
    std::unique_ptr<nbd::Server> nbd;
    std::unique_ptr<vhost::Door> vhost;
    ~Side() {
        vhost.reset();
        nbd.reset();
    }
    [[nodiscard]] vhost::Door::Args door(const std::string& path) const {
        return {.socket = path,
                .options = {.instance = 0, .serial = "s", .queues = 2, .queue_size = 64},
                .disk = *disk,
                .failed = {}};
    }
};

struct HandOverTest : ::testing::Test {
    // What is made here is to be had, or there is nothing to test.
    HandOverTest()
        : image(GODWIT_MUST(
              block::testing::TemporaryImage::create(::testing::TempDir(), disk_bytes))) {}
    void SetUp() override {
        const std::string unique = ::testing::TempDir() + "hand-over." + std::to_string(::getpid());
        nbd_path = unique + ".nbd";
        vhost_path = unique + ".vhost";
        old = std::make_unique<Side>();
        old->disk = GODWIT_MUST(
            ExportedDisk::open({.path = image.path(), .direct = false}, sys::system_clock()));
        old->nbd = GODWIT_MUST(nbd::Server::create(nbd_path, *old->disk, "disk"));
        old->vhost = GODWIT_MUST(vhost::Door::open(old->door(vhost_path)));
    }
    static sys::Moment soon() { return sys::system_clock().now() + 5s; }

    /// Both doors' users, at rest, as they arrive at a successor.
    Users freeze() {
        Users users{.front_end = GODWIT_MUST(old->vhost->freeze(soon())),
                    .clients = GODWIT_MUST(old->nbd->freeze(soon()))};
        state::SavedState state;
        sys::FdManifest descriptors;
        EXPECT_TRUE(encode(std::move(users), state, descriptors).has_value());
        const std::string bytes = state.encode();
        auto arrived = GODWIT_MUST(state::SavedState::decode(std::as_bytes(std::span(bytes))));
        return GODWIT_MUST(decode_users(arrived, descriptors));
    }
    std::unique_ptr<Side> successor() {
        auto made = std::make_unique<Side>();
        made->disk = GODWIT_MUST(ExportedDisk::adopt({.path = image.path(), .direct = false},
                                                     old->disk->place(),
                                                     GODWIT_MUST(old->disk->copy_image()),
                                                     sys::system_clock()));
        made->nbd =
            nbd::Server::adopt({.address = nbd_path,
                                .name = "disk",
                                .uri = old->nbd->uri(),
                                .listening = GODWIT_MUST(old->nbd->listening_socket().duplicate())},
                               *made->disk);
        made->vhost = GODWIT_MUST(vhost::Door::adopt(
            made->door(vhost_path), GODWIT_MUST(old->vhost->listening_socket().duplicate())));
        return made;
    }
    void exchange() {
        Users users = freeze();
        auto next = successor();
        if (users.front_end.has_value()) {
            ASSERT_TRUE(next->vhost->restore(std::move(*users.front_end)).has_value());
        }
        next->nbd->restore(std::move(users.clients));
        old->vhost->let_go();
        old->nbd->let_go();
        old = std::move(next);
        old->vhost->begin();
        ASSERT_TRUE(old->nbd->begin().has_value());
    }

    block::testing::TemporaryImage image;
    std::string nbd_path;
    std::string vhost_path;
    std::unique_ptr<Side> old;
};

std::vector<std::byte> header(std::uint32_t type, std::uint64_t sector) {
    std::vector<std::byte> bytes(16);
    std::memcpy(bytes.data(), &type, 4);
    std::memcpy(bytes.data() + 8, &sector, 8);
    return bytes;
}

/// Waits for the answer to a chain that was offered; its status byte.
std::byte status_of(FrontEnd& front, DriverQueue& driver, const virtio::testing::Offered& offered) {
    while (driver.used_waiting() == 0) {
        if (!front.wait_for_call()) {
            ADD_FAILURE() << "no interrupt";
            return std::byte{0xff};
        }
    }
    EXPECT_EQ(driver.take_used()->head, offered.head);
    return driver.read(offered.segments.back().at, 1)[0];
}

std::byte write(FrontEnd& front, DriverQueue& driver, std::uint64_t sector, int fill) {
    const std::vector<std::byte> data(4096, static_cast<std::byte>(fill));
    return status_of(front,
                     driver,
                     driver.chain().readable(header(1, sector)).readable(data).writable(1).offer());
}

TEST_F(HandOverTest, AFrontEndKeepsItsConnectionAndItsRings) {
    FrontEnd front(vhost_path);
    front.negotiate(features);
    front.share_memory();
    DriverQueue driver(front.memory(), {.size = 64});
    driver.set_doorbell(&front.kick());
    front.start_ring(0, driver.state());
    ASSERT_EQ(write(front, driver, 0, 1), std::byte{0});
    for (int i = 0; i < 3; ++i) {
        exchange();
        EXPECT_EQ(write(front, driver, 8, 2 + i), std::byte{0});
    }
    EXPECT_TRUE(front.alive());
    EXPECT_EQ(front.stop_ring(0), 4U);
}

TEST_F(HandOverTest, WhatIsOfferedWhileNobodyServesIsDoneByTheSuccessor) {
    FrontEnd front(vhost_path);
    front.negotiate(features);
    front.share_memory();
    DriverQueue driver(front.memory(), {.size = 64});
    driver.set_doorbell(&front.kick());
    front.start_ring(0, driver.state());
    ASSERT_EQ(write(front, driver, 0, 1), std::byte{0});
    Users users = freeze();
    const auto offered = driver.chain().readable(header(4, 0)).writable(1).offer();
    front.send(vhost::Request::get_queue_num, std::span<const std::byte>());
    auto next = successor();
    ASSERT_TRUE(next->vhost->restore(std::move(*users.front_end)).has_value());
    EXPECT_EQ(driver.used_waiting(), 0U);
    old->vhost->let_go();
    old->nbd->let_go();
    old = std::move(next);
    old->vhost->begin();
    ASSERT_TRUE(old->nbd->begin().has_value());
    EXPECT_EQ(status_of(front, driver, offered), std::byte{0});
    EXPECT_EQ(front.receive()->body<std::uint64_t>(), 2U);
}

TEST_F(HandOverTest, AFrontEndGoesOnWhereItWasIfNothingComesOfIt) {
    FrontEnd front(vhost_path);
    front.negotiate(features);
    front.share_memory();
    DriverQueue driver(front.memory(), {.size = 64});
    driver.set_doorbell(&front.kick());
    front.start_ring(0, driver.state());
    ASSERT_EQ(write(front, driver, 0, 1), std::byte{0});
    {
        Users users = freeze();
        const auto next = successor();
        ASSERT_TRUE(next->vhost->restore(std::move(*users.front_end)).has_value());
    }
    old->vhost->begin();
    ASSERT_TRUE(old->nbd->begin().has_value());
    EXPECT_EQ(write(front, driver, 8, 2), std::byte{0});
    EXPECT_TRUE(front.alive());
    EXPECT_EQ(::access(vhost_path.c_str(), F_OK), 0);
    EXPECT_EQ(::access(nbd_path.c_str(), F_OK), 0);
}

TEST_F(HandOverTest, AMessageInPartIsTheFrontEndsToFinishFirst) {
    FrontEnd front(vhost_path);
    front.negotiate(features);
    const vhost::Header half{.request = 17, .flags = vhost::flag_version, .bytes = 0};
    front.send_raw(std::as_bytes(std::span(&half, 1)).first(5), {});
    Status frozen;
    // The door's thread may be told to stop before it has read these bytes.
    while (frozen.has_value()) {
        const auto saved = old->vhost->freeze(soon());
        frozen = saved.has_value() ? ok() : Status(saved.error());
        old->vhost->begin();
    }
    EXPECT_EQ(frozen.error().code(), ErrorCode::busy);
    front.send_raw(std::as_bytes(std::span(&half, 1)).subspan(5), {});
    EXPECT_EQ(front.receive()->body<std::uint64_t>(), 2U);
    exchange();
    EXPECT_TRUE(front.alive());
}

TEST_F(HandOverTest, ASessionThatADeviceCannotHaveIsRefused) {
    FrontEnd front(vhost_path);
    front.negotiate(features);
    front.share_memory();
    const DriverQueue driver(front.memory(), {.size = 64});
    front.start_ring(0, driver.state());
    ASSERT_TRUE(front.alive()); // The ring is started by then.
    const auto refused = [&](const std::function<void(vhost::SavedSession&)>& change) {
        Users users = freeze();
        change(users.front_end->session);
        EXPECT_FALSE(successor()->vhost->restore(std::move(*users.front_end)).has_value());
        old->vhost->begin();
        ASSERT_TRUE(old->nbd->begin().has_value());
    };
    refused([](vhost::SavedSession& session) { session.features |= 1ULL << 60U; });
    refused([](vhost::SavedSession& session) { session.protocol_features |= 1ULL << 60U; });
    refused([](vhost::SavedSession& session) { session.rings.emplace_back(); });
    refused([](vhost::SavedSession& session) { session.regions[0].region.bytes = 1ULL << 50U; });
    refused([](vhost::SavedSession& session) { session.rings[0].size = 3; });
    refused([](vhost::SavedSession& session) { session.rings[0].addresses.reset(); });
    refused([](vhost::SavedSession& session) { session.rings[0].addresses->used = 7; });
    refused([](vhost::SavedSession& session) {
        session.rings[0].call = GODWIT_MUST(session.regions[0].object.duplicate()); // no eventfd
    });
    refused([](vhost::SavedSession& session) {
        session.inflight =
            vhost::InflightDescription{.bytes = 64, .offset = 0, .queues = 2, .queue_size = 64};
        session.inflight_object = GODWIT_MUST(session.regions[0].object.duplicate());
    });
    EXPECT_TRUE(front.alive());
}

/// An NBD client's bytes, as they come.
struct NbdClient {
    explicit NbdClient(const std::string& path)
        : socket(GODWIT_MUST(sys::connect_stream(path))) {} // it listens
    void send(const std::vector<std::byte>& bytes) const {
        EXPECT_TRUE(sys::write_all(socket, bytes).has_value());
    }
    std::vector<std::byte> take(std::size_t bytes) const {
        std::vector<std::byte> got(bytes);
        EXPECT_TRUE(sys::read_exact(socket, got).has_value());
        return got;
    }
    static std::vector<std::byte> greeting() {
        std::vector<std::byte> bytes;
        nbd::put(bytes, std::uint32_t{3});
        nbd::put(bytes, nbd::magic_option);
        nbd::put(bytes, static_cast<std::uint32_t>(nbd::Option::export_name));
        nbd::put(bytes, std::uint32_t{0});
        return bytes;
    }
    static std::vector<std::byte>
    command(nbd::CommandType type, std::uint64_t cookie, std::uint32_t count) {
        std::vector<std::byte> bytes;
        nbd::put(bytes, nbd::magic_request);
        nbd::put(bytes, std::uint16_t{0});
        nbd::put(bytes, static_cast<std::uint16_t>(type));
        nbd::put(bytes, cookie);
        nbd::put(bytes, std::uint64_t{0});
        nbd::put(bytes, count);
        return bytes;
    }
    sys::Fd socket;
};

TEST_F(HandOverTest, AClientMayHaveSentAnyPartOfAnything) {
    std::vector<std::byte> whole = NbdClient::greeting();
    const std::size_t greeted = whole.size();
    const std::vector<std::byte> data(1024, std::byte{0x5a});
    const auto write = NbdClient::command(nbd::CommandType::write, 1, 1024);
    const auto read = NbdClient::command(nbd::CommandType::read, 2, 1024);
    for (const auto* part : {&write, &data}) {
        whole.insert(whole.end(), part->begin(), part->end());
    }
    for (std::size_t cut = 0; cut <= whole.size(); cut += cut < greeted + 40 ? 1 : 333) {
        const NbdClient client(nbd_path);
        const auto middle = whole.begin() + static_cast<std::ptrdiff_t>(cut);
        client.send({whole.begin(), middle});
        exchange();
        client.send({middle, whole.end()});
        client.take(18 + 10);
        EXPECT_EQ(nbd::get<std::uint64_t>(client.take(16), 8), 1U) << cut;
        client.send(read);
        const auto answer = client.take(16 + data.size());
        EXPECT_EQ(nbd::get<std::uint64_t>(answer, 8), 2U) << cut;
        EXPECT_TRUE(std::equal(data.begin(), data.end(), answer.begin() + 16)) << cut;
    }
}

TEST_F(HandOverTest, AnswersThatNobodyHasTakenGoOver) {
    const NbdClient client(nbd_path);
    client.send(NbdClient::greeting());
    client.take(18 + 10);
    constexpr std::uint32_t count = 512 * 1024;
    for (std::uint64_t cookie = 0; cookie < 8; ++cookie) {
        client.send(NbdClient::command(nbd::CommandType::read, cookie, count));
    }
    std::size_t carried = 0;
    for (int i = 0; i < 2; ++i) {
        Users users = freeze();
        ASSERT_EQ(users.clients.size(), 1U);
        carried = users.clients[0].output.size() + users.clients[0].input.size();
        auto next = successor();
        next->nbd->restore(std::move(users.clients));
        old->nbd->let_go();
        old->vhost->let_go();
        old = std::move(next);
        old->vhost->begin();
        ASSERT_TRUE(old->nbd->begin().has_value());
    }
    EXPECT_GT(carried, std::size_t{count});
    std::vector<bool> seen(8);
    for (std::uint64_t i = 0; i < 8; ++i) {
        const auto cookie = nbd::get<std::uint64_t>(client.take(16), 8);
        ASSERT_LT(cookie, 8U);
        EXPECT_FALSE(seen[cookie]);
        seen[cookie] = true;
        client.take(count);
    }
}

TEST_F(HandOverTest, AClientThatSaidGoodbyeIsNotCarriedOnceItHasItsAnswers) {
    const NbdClient client(nbd_path);
    client.send(NbdClient::greeting());
    client.take(18 + 10);
    client.send(NbdClient::command(nbd::CommandType::disconnect, 0, 0));
    std::byte one{};
    EXPECT_EQ(sys::read_exact(client.socket, std::span(&one, 1)).error().code(),
              ErrorCode::peer_closed);
    EXPECT_TRUE(freeze().clients.empty());
    old->vhost->begin();
    ASSERT_TRUE(old->nbd->begin().has_value());
}

} // namespace
} // namespace godwit::doors::exchange
