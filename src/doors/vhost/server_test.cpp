#include "doors/testing/front_end.h"
#include "doors/vhost/memory_table.h"
#include "doors/vhost/server.h"
#include "sys/io_thread.h"
#include "sys/stream.h"
#include "sys/thread.h"
#include "virtio/blk/blk_device.h"
#include "virtio/testing/memory_disk.h"

#include <sys/mman.h>

#include <unistd.h>

#include <array>
#include <cstring>
#include <functional>

namespace godwit::doors::vhost {
namespace {

using testing::FrontEnd;
using virtio::testing::DriverQueue;
using virtio::testing::MemoryDisk;
using virtio::testing::MemoryDiskControl;

constexpr std::uint64_t features =
    virtio::feature_version_1 | virtio::feature_indirect_descriptors | virtio::blk_feature::flush;
constexpr std::uint64_t capacity_bytes = 1 * mib;

std::vector<std::byte> header(std::uint32_t type, std::uint64_t sector) {
    std::vector<std::byte> bytes(16);
    std::memcpy(bytes.data(), &type, 4);
    std::memcpy(bytes.data() + 8, &sector, 8);
    return bytes;
}

struct VhostServerTest : ::testing::Test {
    void SetUp() override {
        // Everything below is to be had, or there is nothing to test.
        io = GODWIT_MUST(sys::IoThread::create("door-test"));
        device = GODWIT_MUST(virtio::BlkDevice::create(
            {.options = {.instance = 0, .serial = "door", .queues = 4, .queue_size = 64},
             .disk = std::make_unique<MemoryDisk>(
                 io->loop(),
                 block::BlockGeometry{.bytes = capacity_bytes, .can_write_zeroes = true},
                 control),
             .loop = io->loop(),
             .health_changed = {}}));
        path = ::testing::TempDir() + "vhost." + std::to_string(::getpid());
        server = GODWIT_MUST(Server::create(path, *device));
        thread = sys::start_thread("server", [this] { served = server->run(); });
    }
    void TearDown() override {
        server->stop();
        thread.join();
        EXPECT_TRUE(served.has_value());
    }

    /// A front end that has done everything but start rings.
    std::unique_ptr<FrontEnd> ready() {
        auto made = std::make_unique<FrontEnd>(path);
        made->negotiate(features);
        made->share_memory();
        return made;
    }
    static DriverQueue driver_of(const FrontEnd& front) {
        DriverQueue driver(front.memory(), {.size = 64});
        driver.set_doorbell(&front.kick());
        return driver;
    }
    /// Offers a request and waits until its status byte is there.
    static std::byte run(FrontEnd& front,
                         DriverQueue& driver,
                         const std::function<virtio::testing::Offered()>& offer) {
        const auto offered = offer();
        while (driver.used_waiting() == 0) {
            if (!front.wait_for_call()) {
                ADD_FAILURE() << "no interrupt";
                return std::byte{0xff};
            }
        }
        EXPECT_EQ(driver.take_used()->head, offered.head);
        const auto status = offered.segments.back();
        return driver.read(status.at, 1)[0];
    }
    static std::byte write(FrontEnd& front, DriverQueue& driver, std::uint64_t sector, int fill) {
        const std::vector<std::byte> data(4096, static_cast<std::byte>(fill));
        return run(front, driver, [&] {
            return driver.chain().readable(header(1, sector)).readable(data).writable(1).offer();
        });
    }
    static std::vector<std::byte> read(FrontEnd& front, DriverQueue& driver, std::uint64_t sector) {
        virtio::testing::Offered offered;
        EXPECT_EQ(run(front,
                      driver,
                      [&] {
                          offered = driver.chain()
                                        .readable(header(0, sector))
                                        .writable(4096)
                                        .writable(1)
                                        .offer();
                          return offered;
                      }),
                  std::byte{0});
        return driver.read(offered.writable_at(), 4096);
    }
    /// The server still serves whoever behaves.
    void expect_service() {
        const auto front = ready();
        DriverQueue driver = driver_of(*front);
        front->start_ring(0, driver.state());
        EXPECT_EQ(write(*front, driver, 8, 0x5a), std::byte{0});
    }

    std::shared_ptr<MemoryDiskControl> control = std::make_shared<MemoryDiskControl>();
    std::unique_ptr<sys::IoThread> io;
    std::unique_ptr<virtio::BlkDevice> device;
    std::string path;
    std::unique_ptr<Server> server;
    Status served;
    std::jthread thread;
};

TEST_F(VhostServerTest, OffersWhatTheDiskOffersAndTheProtocol) {
    FrontEnd front(path);
    const auto offered = front.ask(Request::get_features).body<std::uint64_t>();
    EXPECT_EQ(offered & device->features(), device->features());
    EXPECT_NE(offered & feature_protocol_features, 0U);
    EXPECT_EQ(front.ask(Request::get_queue_num).body<std::uint64_t>(), 4U);
    EXPECT_EQ(front.ask(Request::get_max_mem_slots).body<std::uint64_t>(), memory_slots_max);
    // Head (offset 0, 8 bytes, no flags) and the place of the answer: the capacity.
    const std::array<std::uint32_t, 5> config{0, 8, 0, 0, 0};
    const auto reply = front.ask(Request::get_config, config);
    ASSERT_EQ(reply.payload.size(), sizeof(config));
    EXPECT_EQ((reply.body<std::array<std::uint32_t, 5>>()[3]), capacity_bytes / 512);
}

TEST_F(VhostServerTest, WritesAndReadsThroughTwoRings) {
    const auto front = ready();
    DriverQueue first = driver_of(*front);
    DriverQueue second(front->memory(),
                       {.rings = Gpa{0x18'0000}, .data = Gpa{0x60'0000}, .data_bytes = mib});
    second.set_doorbell(&front->kick());
    front->start_ring(0, first.state());
    EXPECT_EQ(write(*front, first, 16, 0x11), std::byte{0});
    front->start_ring(3, second.state());
    EXPECT_EQ(read(*front, second, 16), std::vector<std::byte>(4096, std::byte{0x11}));
    EXPECT_EQ(write(*front, first, 24, 0x22), std::byte{0}); // the first goes on meanwhile
    EXPECT_EQ(front->stop_ring(0), 2U);
    EXPECT_EQ(read(*front, second, 24), std::vector<std::byte>(4096, std::byte{0x22}));
}

TEST_F(VhostServerTest, AStoppedRingIsDrainedAndGoesOnWhereItStood) {
    const auto front = ready();
    DriverQueue driver = driver_of(*front);
    front->start_ring(0, driver.state());
    EXPECT_EQ(write(*front, driver, 0, 1), std::byte{0});
    control->hold(true);
    driver.chain().readable(header(1, 8)).readable(driver.read(Gpa{0}, 512)).writable(1).offer();
    ASSERT_TRUE(control->wait_for_requests(2));
    front->send(Request::get_vring_base, RingState{.index = 0, .number = 0});
    control->release(); // only now can the ring be at rest
    EXPECT_EQ(front->receive()->body<RingState>().number, 2U);
    EXPECT_EQ(driver.used_waiting(), 1U);
    ASSERT_TRUE(driver.take_used().has_value());
    virtio::QueueState state = driver.state();
    state.next_available = 2;
    front->start_ring(0, state);
    EXPECT_EQ(write(*front, driver, 8, 3), std::byte{0});
}

TEST_F(VhostServerTest, ARingThatIsNotEnabledIsNotServed) {
    const auto front = ready();
    DriverQueue driver = driver_of(*front);
    front->start_ring(0, driver.state());
    front->send(Request::set_vring_enable, RingState{.index = 0, .number = 0});
    ASSERT_TRUE(front->alive());
    driver.chain().readable(header(4, 0)).writable(1).offer();
    ASSERT_TRUE(front->alive());
    EXPECT_EQ(driver.used_waiting(), 0U);
    front->send(Request::set_vring_enable, RingState{.index = 0, .number = 1});
    ASSERT_TRUE(front->alive());
    while (driver.used_waiting() == 0) {
        ASSERT_TRUE(front->wait_for_call());
    }
}

TEST_F(VhostServerTest, RequestsOfAFrontEndThatWentAreFinished) {
    auto front = ready();
    DriverQueue driver = driver_of(*front);
    front->start_ring(0, driver.state());
    control->hold(true);
    driver.chain().readable(header(4, 0)).writable(1).offer();
    ASSERT_TRUE(control->wait_for_requests(1));
    const auto memory = front->memory();
    front.reset();
    control->release();
    expect_service();
    EXPECT_EQ(driver.used_waiting(), 1U);
}

TEST_F(VhostServerTest, InflightMemoryKeepsWhatWasTakenForTheNextServer) {
    const auto front = ready();
    const auto made =
        front->ask(Request::get_inflight_fd,
                   InflightDescription{.bytes = 0, .offset = 0, .queues = 1, .queue_size = 64});
    ASSERT_EQ(made.fds.size(), 1U);
    const auto description = made.body<InflightDescription>();
    EXPECT_GE(description.bytes, virtio::InflightRing::bytes_for(64));
    front->send(Request::set_inflight_fd, description, {&made.fds[0]});
    DriverQueue driver = driver_of(*front);
    front->start_ring(0, driver.state());
    control->hold(true);
    const auto offered = driver.chain().readable(header(4, 0)).writable(1).offer();
    ASSERT_TRUE(control->wait_for_requests(1));
    const auto mapping =
        sys::MappedRegion::create(made.fds[0], 0, description.bytes, sys::MapMode::shared);
    ASSERT_TRUE(mapping.has_value());
    // Entry of the head: in flight (16 bytes of header, 16 for each descriptor).
    const std::byte* const entry = mapping->data() + 16 + 16 * std::size_t{offered.head};
    EXPECT_EQ(*entry, std::byte{1});
    control->release();
    while (driver.used_waiting() == 0) {
        ASSERT_TRUE(front->wait_for_call());
    }
    ASSERT_TRUE(front->alive());
    EXPECT_EQ(front->stop_ring(0), 1U);
    EXPECT_EQ(*entry, std::byte{0});
}

TEST_F(VhostServerTest, ATornMemoryEndsTheConnectionAndNotTheServer) {
    const auto front = ready();
    {
        DriverQueue driver = driver_of(*front);
        front->start_ring(0, driver.state());
        ASSERT_TRUE(front->alive());
    }
    ASSERT_EQ(::ftruncate(front->ram().raw(), 0), 0);
    front->kick().signal();
    // The rings are read, and the connection ends with the answer to what is asked next, or after.
    while (front->alive()) {
        front->kick().signal();
    }
    expect_service();
}

TEST_F(VhostServerTest, ABrokenDriverIsToldAndServedAgainAfterAStop) {
    const auto front = ready();
    DriverQueue driver = driver_of(*front);
    const sys::EventFd error = GODWIT_MUST(sys::EventFd::create()); // an eventfd is to be had
    front->send(Request::set_vring_err, std::uint64_t{0}, {&error.fd()});
    front->start_ring(0, driver.state());
    ASSERT_TRUE(front->alive());
    driver.make_available(60000); // no such descriptor
    front->kick().signal();
    const auto told = sys::wait_ready(error.fd(), sys::Direction::input, std::chrono::seconds(10));
    EXPECT_TRUE(told.has_value() && *told);
    EXPECT_EQ(front->stop_ring(0), 0U);
}

// --- what must end the connection ---

struct Misdeed {
    const char* name;
    std::function<void(FrontEnd&)> commit;
};

std::ostream& operator<<(std::ostream& out, const Misdeed& misdeed) {
    return out << misdeed.name;
}

struct VhostMisdeedTest : VhostServerTest, ::testing::WithParamInterface<Misdeed> {};

TEST_P(VhostMisdeedTest, EndsTheConnectionOnly) {
    const auto front = ready();
    ASSERT_TRUE(front->alive());
    GetParam().commit(*front);
    ASSERT_FALSE(front->alive());
    expect_service();
}

void send_region(FrontEnd& front, MemoryRegion region) {
    front.send(Request::add_mem_reg, SingleRegion{.padding = 0, .region = region}, {&front.ram()});
}

/// A ring by the book but for what `spoil` changes.
void start_spoilt(FrontEnd& front, const std::function<void(virtio::QueueState&)>& spoil) {
    virtio::QueueState state = DriverQueue(front.memory(), {.size = 64}).state();
    spoil(state);
    front.start_ring(0, state);
}

const Misdeed misdeeds[] = {
    {"unknown_message", [](FrontEnd& f) { f.send(static_cast<Request>(77), std::uint64_t{0}); }},
    {"wrong_version", [](FrontEnd& f) { f.send(Request::set_owner, std::uint64_t{0}, {}, 2); }},
    {"a_reply", [](FrontEnd& f) { f.send(Request::set_owner, std::uint64_t{0}, {}, 5); }},
    {"long_payload",
     [](FrontEnd& f) { f.send(Request::set_owner, std::vector<std::byte>(70000)); }},
    {"cut_off",
     [](FrontEnd& f) {
         const Header header{.request = 2, .flags = 1, .bytes = 4};
         f.send_raw(std::as_bytes(std::span(&header, 1)), {});
         f.send_raw(std::as_bytes(std::span("abcd", 4)), {});
     }},
    {"features_not_offered",
     [](FrontEnd& f) { f.send(Request::set_features, std::uint64_t{1} << 63U); }},
    {"protocol_features_not_offered",
     [](FrontEnd& f) { f.send(Request::set_protocol_features, std::uint64_t{1} << 63U); }},
    {"short_number", [](FrontEnd& f) { f.send(Request::set_features, std::uint16_t{0}); }},
    {"table_without_descriptors",
     [](FrontEnd& f) { f.send(Request::set_mem_table, MemoryTableHead{.regions = 3}); }},
    {"table_too_short",
     [](FrontEnd& f) {
         f.send(Request::set_mem_table, MemoryTableHead{.regions = 1}, {&f.ram()});
     }},
    {"table_of_many",
     [](FrontEnd& f) { f.send(Request::set_mem_table, MemoryTableHead{.regions = ~0U}); }},
    {"too_many_descriptors",
     [](FrontEnd& f) {
         f.send(Request::set_owner, std::uint64_t{0}, std::vector<const sys::Fd*>(20, &f.ram()));
     }},
    {"overlap_for_the_guest",
     [](FrontEnd& f) { send_region(f, {.guest_address = 4096, .bytes = 4096}); }},
    {"overlap_in_the_front_end",
     [](FrontEnd& f) {
         send_region(f,
                     {.guest_address = 1ULL << 40U,
                      .bytes = 4096,
                      .user_address = testing::front_end_user_base});
     }},
    {"region_beyond_the_object",
     [](FrontEnd& f) {
         send_region(f,
                     {.guest_address = 1ULL << 40U,
                      .bytes = testing::front_end_ram_bytes,
                      .user_address = 4096,
                      .mapping_offset = 4096});
     }},
    {"region_that_wraps",
     [](FrontEnd& f) {
         send_region(f, {.guest_address = ~0ULL - 4095, .bytes = 8192, .user_address = 4096});
     }},
    {"empty_region",
     [](FrontEnd& f) { send_region(f, {.guest_address = 1ULL << 40U, .bytes = 0}); }},
    {"region_of_no_memory",
     [](FrontEnd& f) {
         const SingleRegion region{.padding = 0,
                                   .region = {.guest_address = 1ULL << 40U, .bytes = 4096}};
         f.send(Request::add_mem_reg, region, {&f.kick().fd()});
     }},
    {"region_without_a_descriptor",
     [](FrontEnd& f) { f.send(Request::add_mem_reg, SingleRegion{}); }},
    {"removing_what_is_not_there",
     [](FrontEnd& f) {
         f.send(Request::rem_mem_reg,
                SingleRegion{.padding = 0, .region = {.guest_address = 4096, .bytes = 4096}});
     }},
    {"too_many_regions",
     [](FrontEnd& f) {
         for (std::uint64_t i = 1; i <= memory_slots_max; ++i) {
             send_region(f, {.guest_address = i << 30U, .bytes = 4096, .user_address = i << 20U});
         }
     }},
    {"unaligned_region",
     [](FrontEnd& f) {
         send_region(f, {.guest_address = (1ULL << 40U) + 8, .bytes = 4096, .user_address = 4096});
         start_spoilt(f, [](virtio::QueueState&) {});
     }},
    {"no_such_ring",
     [](FrontEnd& f) { f.send(Request::set_vring_num, RingState{.index = 4, .number = 64}); }},
    {"no_such_ring_for_a_descriptor",
     [](FrontEnd& f) { f.send(Request::set_vring_call, std::uint64_t{200}, {&f.call().fd()}); }},
    {"strange_descriptor_flags",
     [](FrontEnd& f) { f.send(Request::set_vring_call, std::uint64_t{0x1000}, {&f.call().fd()}); }},
    {"ring_of_no_size",
     [](FrontEnd& f) { f.send(Request::set_vring_num, RingState{.index = 0, .number = 0}); }},
    {"huge_ring",
     [](FrontEnd& f) {
         f.send(Request::set_vring_num, RingState{.index = 0, .number = 1U << 20U});
     }},
    {"ring_size_no_power",
     [](FrontEnd& f) { start_spoilt(f, [](virtio::QueueState& s) { s.size = 63; }); }},
    {"huge_base",
     [](FrontEnd& f) { f.send(Request::set_vring_base, RingState{.index = 0, .number = 70000}); }},
    {"half_enabled",
     [](FrontEnd& f) { f.send(Request::set_vring_enable, RingState{.index = 0, .number = 2}); }},
    {"ring_in_no_region",
     [](FrontEnd& f) {
         start_spoilt(f, [](virtio::QueueState& s) {
             s.descriptors = Gpa{testing::front_end_ram_bytes + 4096};
         });
     }},
    {"ring_over_the_end",
     [](FrontEnd& f) {
         start_spoilt(f, [](virtio::QueueState& s) {
             s.descriptors = Gpa{testing::front_end_ram_bytes - 16};
         });
     }},
    {"used_index_over_the_end",
     [](FrontEnd& f) {
         start_spoilt(f, [](virtio::QueueState& s) {
             s.device_area = Gpa{testing::front_end_ram_bytes - 2};
         });
     }},
    {"unaligned_ring",
     [](FrontEnd& f) { start_spoilt(f, [](virtio::QueueState& s) { s.descriptors.value += 8; }); }},
    {"logged_ring",
     [](FrontEnd& f) { f.send(Request::set_vring_addr, RingAddresses{.index = 0, .flags = 1}); }},
    {"started_without_addresses",
     [](FrontEnd& f) {
         f.send(Request::set_vring_enable, RingState{.index = 0, .number = 1});
         f.send(Request::set_vring_kick, std::uint64_t{0}, {&f.kick().fd()});
     }},
    {"doorbell_that_is_none",
     [](FrontEnd& f) { f.send(Request::set_vring_kick, std::uint64_t{0}, {&f.ram()}); }},
    {"doorbell_to_be_polled", [](FrontEnd& f) { f.send(Request::set_vring_kick, ring_no_fd); }},
    {"interrupt_that_is_none",
     [](FrontEnd& f) { f.send(Request::set_vring_call, std::uint64_t{0}, {&f.ram()}); }},
    {"config_too_long",
     [](FrontEnd& f) { f.send(Request::get_config, ConfigHead{.offset = 0, .bytes = 300}); }},
    {"config_of_another_length",
     [](FrontEnd& f) { f.send(Request::get_config, ConfigHead{.offset = 0, .bytes = 60}); }},
    {"inflight_of_no_queues",
     [](FrontEnd& f) { f.send(Request::get_inflight_fd, InflightDescription{}); }},
    {"inflight_of_many_queues",
     [](FrontEnd& f) {
         f.send(Request::get_inflight_fd,
                InflightDescription{.queues = 60000, .queue_size = 60000});
     }},
    {"inflight_too_small",
     [](FrontEnd& f) {
         f.send(Request::set_inflight_fd,
                InflightDescription{.bytes = 4096, .queues = 4, .queue_size = 1024},
                {&f.ram()});
     }},
    {"inflight_of_another_ring_size",
     [](FrontEnd& f) {
         const auto made =
             f.ask(Request::get_inflight_fd, InflightDescription{.queues = 1, .queue_size = 32});
         f.send(Request::set_inflight_fd, made.body<InflightDescription>(), {&made.fds[0]});
         start_spoilt(f, [](virtio::QueueState&) {});
     }},
};

INSTANTIATE_TEST_SUITE_P(All,
                         VhostMisdeedTest,
                         ::testing::ValuesIn(misdeeds),
                         [](const auto& instance) { return std::string(instance.param.name); });

} // namespace
} // namespace godwit::doors::vhost
