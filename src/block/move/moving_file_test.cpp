// Disks in real files move on a real loop: what simulations cannot show.
#include "base/units.h"
#include "block/file_device.h"
#include "block/move/moving_device.h"
#include "block/testing/perform.h"
#include "block/testing/temporary_image.h"

#include <fcntl.h>
#include <unistd.h>

namespace godwit::block {
namespace {

using testing::perform;
using testing::TemporaryImage;

constexpr std::uint64_t disk_bytes = 8 * mib;

struct Files {
    TemporaryImage source;
    TemporaryImage destination;
    std::unique_ptr<sys::EventLoop> loop;
    std::unique_ptr<sys::LoopAlarmClock> clock;
    std::unique_ptr<MovingDevice> device;
    std::optional<MoveReport> report;

    Files()
        : source(GODWIT_MUST(TemporaryImage::create("/dev/shm", disk_bytes))),      // Room.
          destination(GODWIT_MUST(TemporaryImage::create("/dev/shm", disk_bytes))), // Room.
          loop(GODWIT_MUST(sys::EventLoop::create())),                              // Descriptors.
          clock(std::make_unique<sys::LoopAlarmClock>(*loop, sys::system_clock())),
          device(GODWIT_MUST(MovingDevice::create(open(source), *clock))) {} // Descriptors.

    std::unique_ptr<BlockDevice> open(const TemporaryImage& image) const {
        sys::Fd fd = GODWIT_MUST(open_image(image.path(), {.direct = false})); // Just made.
        return GODWIT_MUST(                                                    // Linux 6.1.
            FileDevice::create(std::move(fd), *loop, {.name = image.path()}));
    }
    Status start(Scheme scheme) {
        MoveHooks hooks;
        hooks.finished = [this](const MoveReport& result) { report = result; };
        return device->start(open(destination), {.scheme = scheme}, std::move(hooks));
    }
    bool write(std::uint64_t offset, std::string data) {
        const iovec segment{.iov_base = data.data(), .iov_len = data.size()};
        BlockRequest request{.operation = BlockOperation::write,
                             .offset = offset,
                             .bytes = data.size(),
                             .segments = {&segment, 1}};
        return perform(*device, *loop, request).has_value();
    }
};

std::string contents(const TemporaryImage& image) {
    return GODWIT_MUST(sys::read_file(image.path(), disk_bytes)); // Just written.
}

class MovingFile : public ::testing::TestWithParam<Scheme> {};

TEST_P(MovingFile, disk_under_writes_arrives_with_its_holes) {
    Files files;
    std::string expected(disk_bytes, '\0');
    const auto write = [&](std::uint64_t offset, const std::string& data) {
        expected.replace(offset, data.size(), data);
        return files.write(offset, data);
    };
    ASSERT_TRUE(write(4096, std::string(64 * kib, 'a')));
    ASSERT_TRUE(files.start(GetParam()).has_value());
    std::uint64_t writes = 0;
    while (!files.report.has_value()) {
        ASSERT_TRUE(write(writes++ * 37 % 64 * 512, std::string(512, 'b')));
        ASSERT_LT(writes, 1'000'000U);
    }
    ASSERT_TRUE(write(100 * kib, std::string(512, 'c'))); // To the destination alone.
    EXPECT_EQ(files.report->outcome, MoveOutcome::moved);
    EXPECT_EQ(files.device->description(), "file " + files.destination.path());
    EXPECT_TRUE(contents(files.destination) == expected);
    const sys::Fd file = GODWIT_MUST(sys::open(files.destination.path(), O_RDONLY)); // It is there.
    EXPECT_LT(::lseek(file.raw(), static_cast<off_t>(mib), SEEK_DATA), 0);
}

INSTANTIATE_TEST_SUITE_P(, MovingFile, ::testing::ValuesIn(all_schemes), [](const auto& test) {
    return std::string(name_of(test.param));
});

TEST(MovingFiles, image_that_was_left_is_free_again) {
    Files files;
    ASSERT_TRUE(files.start(Scheme::mirror).has_value());
    while (!files.report.has_value()) {
        ASSERT_TRUE(files.loop->run_once(std::chrono::seconds(10)).has_value());
    }
    EXPECT_FALSE(open_image(files.source.path(), {.direct = false}).has_value());
    files.device->take_retired().reset();
    EXPECT_TRUE(open_image(files.source.path(), {.direct = false}).has_value());
    EXPECT_FALSE(open_image(files.destination.path(), {.direct = false}).has_value());
}

TEST(MovingFiles, device_closed_in_the_middle_leaves_nothing_behind) {
    Files files;
    ASSERT_TRUE(files.write(0, std::string(4 * mib, 'a')));
    ASSERT_TRUE(files.start(Scheme::lr).has_value());
    ASSERT_TRUE(files.write(mib, std::string(512, 'b')));
    files.device.reset();
    EXPECT_TRUE(open_image(files.source.path(), {.direct = false}).has_value());
    EXPECT_TRUE(open_image(files.destination.path(), {.direct = false}).has_value());
}

} // namespace
} // namespace godwit::block
