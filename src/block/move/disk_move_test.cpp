// One move on a real loop, with real files: what the owner is told, and when.
#include "base/units.h"
#include "block/move/disk_move.h"
#include "block/testing/temporary_image.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace godwit::block {
namespace {

using testing::TemporaryImage;

constexpr std::uint64_t disk_bytes = 4 * mib;

struct World {
    TemporaryImage source;
    TemporaryImage there;
    sys::Fd image;
    std::unique_ptr<sys::EventLoop> loop;
    sys::LoopAlarmClock clock;
    std::unique_ptr<MovingDevice> disk;
    DiskMoveHooks hooks;
    Status commit_answer;
    std::vector<std::string> noted; ///< Where the disk was said to lie.
    std::uint32_t told = 0;
    std::unique_ptr<DiskMove> move;

    World()
        : source(GODWIT_MUST(TemporaryImage::create("/dev/shm", disk_bytes))), // There is room.
          there(GODWIT_MUST(TemporaryImage::create("/dev/shm", disk_bytes))),  // As above.
          image(GODWIT_MUST(open_image(source.path(), {}))),                   // Just made.
          loop(GODWIT_MUST(sys::EventLoop::create())), clock(*loop, sys::system_clock()) {
        sys::Fd copy = GODWIT_MUST(image.duplicate()); // Descriptors are left.
        auto file = GODWIT_MUST(FileDevice::create(    // Linux 6.1 has what it needs.
            std::move(copy),
            *loop,
            {.name = source.path()}));
        disk = GODWIT_MUST(MovingDevice::create(std::move(file), clock)); // As above.
        hooks.note = [this](const ImagePlace& now) -> Status {
            noted.push_back(now.path);
            return commit_answer;
        };
        hooks.ended = [this](std::string_view name) {
            EXPECT_EQ(name, "disk2");
            ++told;
        };
    }
    World(const World&) = delete;
    World& operator=(const World&) = delete;
    ~World() = default;
    void start(DiskMoveRequest request) {
        request.disk = "disk2";
        request.destination = there.path();
        DiskDestination destination = GODWIT_MUST(DiskDestination::open( // It is there, and free.
            {.path = there.path(), .bytes = disk_bytes, .logical_block_bytes = 512}));
        Result<std::unique_ptr<DiskMove>> started = DiskMove::start({.name = "disk2",
                                                                     .source = source.path(),
                                                                     .disk = *disk,
                                                                     .loop = *loop,
                                                                     .clock = clock,
                                                                     .hooks = hooks,
                                                                     .request = std::move(request)},
                                                                    destination);
        ASSERT_TRUE(started.has_value()) << started.error().to_string();
        move = std::move(*started);
    }
    void run_to_end() const {
        while (!move->over()) {
            ASSERT_TRUE(loop->run_once(std::chrono::seconds(10)).has_value());
        }
    }
    nlohmann::json report() const { return nlohmann::json::parse(to_json(move->state())); }
};

TEST(DiskMove, place_is_noted_before_the_guest_goes_on_there) {
    World world;
    world.start({.scheme = "mirror"});
    world.run_to_end();
    EXPECT_EQ(world.noted, std::vector<std::string>{world.there.path()});
    EXPECT_EQ(world.told, 1U);
    EXPECT_EQ(world.move->place().path, world.there.path());
    EXPECT_EQ(world.disk->description(), "file " + world.there.path());
    EXPECT_EQ(world.report()["outcome"], "moved");
    EXPECT_EQ(world.report()["complete"], "destination");
}

TEST(DiskMove, disk_stays_if_its_place_cannot_be_noted) {
    for (const char* scheme : {"dbt", "mirror", "lr", "aio", "tiered"}) {
        World world;
        world.commit_answer = Error(ErrorCode::io, "no room for the document");
        world.start({.scheme = scheme});
        world.run_to_end();
        EXPECT_EQ(world.disk->description(), "file " + world.source.path()) << scheme;
        EXPECT_EQ(world.report()["outcome"], "failed");
        EXPECT_EQ(world.report()["complete"], "source");
        EXPECT_NE(world.report()["reason"].get<std::string>().find("no room"), std::string::npos);
    }
}

TEST(DiskMove, automatic_one_says_what_each_scheme_was_expected_to_cost) {
    World world;
    world.start({.scheme = "auto"});
    EXPECT_EQ(world.report()["phase"], "watching");
    world.run_to_end();
    const nlohmann::json report = world.report();
    EXPECT_EQ(report["outcome"], "moved");
    EXPECT_EQ(report["asked"], "auto");
    EXPECT_EQ(report["choice"]["estimates"].size(), all_schemes.size());
    EXPECT_NE(report["scheme"], "lr");
    EXPECT_EQ(world.disk->observed(), nullptr) << "the filter costs the guest time";
}

TEST(DiskMove, estimate_moves_nothing) {
    World world;
    world.start({.scheme = "auto", .estimate_only = true});
    EXPECT_EQ(world.report()["estimate"], true);
    world.run_to_end();
    const nlohmann::json report = world.report();
    EXPECT_EQ(report["outcome"], "estimated");
    EXPECT_EQ(report["complete"], "source");
    EXPECT_EQ(report["choice"]["estimates"].size(), all_schemes.size());
    EXPECT_TRUE(world.noted.empty());
    EXPECT_EQ(world.disk->description(), "file " + world.source.path());
}

TEST(DiskMove, estimate_that_is_cancelled_knows_nothing) {
    World world;
    world.start({.scheme = "auto", .estimate_only = true});
    ASSERT_TRUE(world.move->cancel().has_value());
    world.run_to_end();
    EXPECT_EQ(world.report()["outcome"], "cancelled");
}

TEST(DiskMove, requests_are_read_strictly) {
    const auto parsed = [](nlohmann::json changes) {
        nlohmann::json params{{"disk", "disk0"}, {"destination", "/x"}, {"scheme", "mirror"}};
        params.update(changes);
        return parse_disk_move_request(params.dump());
    };
    const Result<DiskMoveRequest> good =
        parsed({{"must_make", true}, {"reads_from_destination", true}, {"estimate_only", true}});
    ASSERT_TRUE(good.has_value());
    EXPECT_TRUE(good->must_make && good->reads_from_destination && !good->unsafe);
    EXPECT_FALSE(good->estimate_only);
    for (const char* key : {"must_make", "reads_from_destination", "unsafe", "gamma", "disk"}) {
        EXPECT_FALSE(parsed({{key, nlohmann::json::array()}}).has_value()) << key;
    }
    EXPECT_FALSE(validate({.scheme = "mirror", .estimate_only = true}).has_value());
}

TEST(DiskMove, cancelled_while_it_watches_nothing_has_moved) {
    World world;
    world.start({.scheme = "auto"});
    ASSERT_TRUE(world.move->cancel().has_value());
    world.run_to_end();
    EXPECT_EQ(world.report()["outcome"], "cancelled");
    EXPECT_EQ(world.told, 1U);
    EXPECT_TRUE(world.noted.empty());
    EXPECT_FALSE(world.move->cancel().has_value());
}

TEST(DiskMove, abandoned_it_tells_nothing_and_leaves_both_images_free) {
    for (const char* scheme : {"auto", "mirror"}) {
        World world;
        world.start({.scheme = scheme});
        ASSERT_TRUE(world.loop->run_once(std::chrono::seconds(10)).has_value());
        world.move->abandon();
        world.disk.reset();
        world.move.reset();
        world.image = sys::Fd();
        EXPECT_EQ(world.told, 0U);
        EXPECT_TRUE(open_image(world.source.path(), {}).has_value());
        EXPECT_TRUE(open_image(world.there.path(), {}).has_value());
    }
}

} // namespace
} // namespace godwit::block
