#include "base/units.h"
#include "block/file_device.h"
#include "block/testing/perform.h"
#include "block/testing/temporary_image.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <random>

namespace godwit::block {
namespace {

using testing::perform;
using testing::perform_all;
using testing::TemporaryImage;

constexpr std::uint64_t disk_bytes = 2 * mib;

/// Where the image lies and how it is opened.
struct Place {
    const char* folder;
    ImageOptions options;
};

/// One image, its device and the loop it lives on.
struct Disk {
    TemporaryImage image;
    std::unique_ptr<sys::EventLoop> loop;
    std::unique_ptr<FileDevice> device;

    Status run(BlockRequest& request) { return perform(*device, *loop, request); }
};

Disk make_disk(const Place& place, std::uint32_t queue_depth = 16) {
    TemporaryImage image = GODWIT_MUST(TemporaryImage::create(place.folder, disk_bytes)); // Room.
    auto loop = GODWIT_MUST(sys::EventLoop::create());                 // Descriptors.
    sys::Fd fd = GODWIT_MUST(open_image(image.path(), place.options)); // Just made.
    auto device = GODWIT_MUST(FileDevice::create(                      // Linux 6.1.
        std::move(fd),
        *loop,
        {.name = image.path(), .queue_depth = queue_depth}));
    return {.image = std::move(image), .loop = std::move(loop), .device = std::move(device)};
}

/// Memory of a chosen misalignment.
class Buffer {
  public:
    explicit Buffer(std::size_t bytes, std::size_t shift = 0)
        : memory_(bytes + page_size + shift), bytes_(bytes), shift_(shift) {}
    [[nodiscard]] char* data() {
        void* start = memory_.data();
        std::size_t room = memory_.size();
        return static_cast<char*>(std::align(page_size, bytes_, start, room)) + shift_;
    }
    [[nodiscard]] std::string text() { return {data(), bytes_}; }
    void fill(char value) { std::fill_n(data(), bytes_, value); }
    [[nodiscard]] iovec segment() { return {.iov_base = data(), .iov_len = bytes_}; }

  private:
    std::vector<char> memory_;
    std::size_t bytes_;
    std::size_t shift_;
};

BlockRequest request_of(BlockOperation operation,
                        std::uint64_t offset,
                        std::uint64_t bytes,
                        std::span<const iovec> segments = {}) {
    BlockRequest request;
    request.operation = operation;
    request.offset = offset;
    request.bytes = bytes;
    request.segments = segments;
    return request;
}

class FileDevicePlaces : public ::testing::TestWithParam<Place> {};

/// What each region of the differential test does next, and what its disk holds.
class Region {
  public:
    static constexpr std::uint64_t bytes = disk_bytes / 16;

    Region(std::uint64_t start, std::uint64_t seed, std::uint64_t block)
        : random_(seed), start_(start), block_(block), model_(bytes, '\0') {}

    /// Chooses an operation of a random range, memory layout and flags.
    BlockRequest next() {
        const std::uint64_t blocks = bytes / block_;
        const std::uint64_t first = random_() % blocks;
        const std::uint64_t length = (1 + random_() % (blocks - first)) * block_;
        const auto operation = static_cast<BlockOperation>(random_() % 5);
        offset_ = first * block_;
        memory_.emplace(length, random_() % 4 == 0 ? random_() % 64 : 0);
        memory_->fill(static_cast<char>('a' + random_() % 26));
        split(length);
        BlockRequest request = request_of(operation, start_ + offset_, length, segments_);
        request.force_unit_access = random_() % 4 == 0;
        request.may_unmap = random_() % 2 == 0;
        if (operation == BlockOperation::write) {
            model_.replace(offset_, length, memory_->text());
        } else if (operation == BlockOperation::discard ||
                   operation == BlockOperation::write_zeroes) {
            model_.replace(offset_, length, std::string(length, '\0'));
        }
        return request;
    }
    /// After a read: the memory holds what the model does.
    [[nodiscard]] bool read_matches() {
        const std::string text = memory_->text();
        return model_.compare(offset_, text.size(), text) == 0;
    }

  private:
    /// One to four segments, cut at any byte.
    void split(std::uint64_t length) {
        segments_.clear();
        char* start = memory_->data();
        while (segments_.size() < 3 && length > 1 && random_() % 2 == 0) {
            const std::uint64_t piece = 1 + random_() % (length - 1);
            segments_.push_back({.iov_base = start, .iov_len = piece});
            start += piece;
            length -= piece;
        }
        segments_.push_back({.iov_base = start, .iov_len = length});
    }

    std::minstd_rand random_;
    std::uint64_t start_;
    std::uint64_t block_;
    std::string model_;
    std::uint64_t offset_ = 0;
    std::optional<Buffer> memory_;
    std::vector<iovec> segments_;
};

TEST_P(FileDevicePlaces, random_operations_match_a_plain_array) {
    Disk disk = make_disk(GetParam(), 8);
    std::vector<Region> regions;
    for (std::uint64_t i = 0; i < 16; ++i) {
        regions.emplace_back(i * Region::bytes, i + 1, disk.device->geometry().logical_block_bytes);
    }
    for (int round = 0; round < 40; ++round) {
        std::vector<BlockRequest> requests;
        for (Region& region : regions) {
            requests.push_back(region.next());
        }
        const std::vector<Status> outcomes = perform_all(*disk.device, *disk.loop, requests);
        for (std::size_t i = 0; i < regions.size(); ++i) {
            ASSERT_TRUE(outcomes[i].has_value()) << outcomes[i].error().to_string();
            ASSERT_TRUE(requests[i].operation != BlockOperation::read || regions[i].read_matches())
                << "region " << i << " round " << round;
        }
    }
}

TEST_P(FileDevicePlaces, writes_reach_the_file) {
    Disk disk = make_disk(GetParam());
    Buffer data(8192);
    data.fill('w');
    const iovec segment = data.segment();
    BlockRequest write = request_of(BlockOperation::write, 4096, 8192, {&segment, 1});
    write.force_unit_access = true;
    ASSERT_TRUE(disk.run(write).has_value());
    const auto text = sys::read_file(disk.image.path(), disk_bytes);
    ASSERT_TRUE(text.has_value());
    EXPECT_EQ(text->substr(4096, 8192), std::string(8192, 'w'));
    EXPECT_EQ(text->substr(0, 4096), std::string(4096, '\0'));
}

TEST_P(FileDevicePlaces, more_requests_than_depth_all_finish) {
    Disk disk = make_disk(GetParam(), 2);
    Buffer data(disk_bytes, 1); // Misaligned: buffers run short too.
    const iovec whole = data.segment();
    std::vector<iovec> segments;
    std::vector<BlockRequest> requests;
    segments.reserve(256);
    for (std::uint64_t i = 0; i < 256; ++i) {
        segments.push_back(
            {.iov_base = static_cast<char*>(whole.iov_base) + i * 4096, .iov_len = 4096});
        requests.push_back(
            request_of(BlockOperation::write, i * 4096, 4096, {&segments.back(), 1}));
    }
    for (const Status& status : perform_all(*disk.device, *disk.loop, requests)) {
        EXPECT_TRUE(status.has_value());
    }
    EXPECT_EQ(disk.device->in_flight(), 0U);
}

TEST_P(FileDevicePlaces, discard_gives_space_back) {
    Disk disk = make_disk(GetParam());
    Buffer data(mib);
    data.fill('d');
    const iovec segment = data.segment();
    BlockRequest write = request_of(BlockOperation::write, 0, mib, {&segment, 1});
    BlockRequest flush = request_of(BlockOperation::flush, 0, 0);
    BlockRequest discard = request_of(BlockOperation::discard, 0, mib);
    ASSERT_TRUE(disk.run(write).has_value());
    ASSERT_TRUE(disk.run(flush).has_value());
    ASSERT_TRUE(disk.run(discard).has_value());
    EXPECT_EQ(::lseek(disk.device->image().raw(), 0, SEEK_DATA), -1);
}

INSTANTIATE_TEST_SUITE_P(,
                         FileDevicePlaces,
                         ::testing::Values(Place{"/dev/shm", {.direct = true}},
                                           Place{"/dev/shm", {.direct = false}},
                                           Place{".", {.direct = true}},
                                           Place{".", {.direct = false}}),
                         [](const auto& test) {
                             return std::string(test.param.folder[0] == '.' ? "here" : "tmpfs") +
                                    (test.param.options.direct ? "_direct" : "_buffered");
                         });

constexpr Place tmpfs{"/dev/shm", {.direct = false}};

TEST(FileDevice, refused_request_fails_through_done) {
    Disk disk = make_disk(tmpfs);
    BlockRequest beyond = request_of(BlockOperation::discard, disk_bytes, 512);
    const Status status = disk.run(beyond);
    ASSERT_FALSE(status.has_value());
    EXPECT_EQ(status.error().code(), ErrorCode::invalid_argument);
}

TEST(FileDevice, refusals_of_two_at_once_leave_hole_punching_on) {
    Disk disk = make_disk(tmpfs); // tmpfs refuses ZERO_RANGE and punches holes.
    Buffer data(mib);
    data.fill('d');
    const iovec segment = data.segment();
    BlockRequest write = request_of(BlockOperation::write, 0, mib, {&segment, 1});
    ASSERT_TRUE(disk.run(write).has_value());
    std::array zeroes{request_of(BlockOperation::write_zeroes, 0, 4096),
                      request_of(BlockOperation::write_zeroes, 8192, 4096)};
    for (const Status& status : perform_all(*disk.device, *disk.loop, zeroes)) {
        EXPECT_TRUE(status.has_value());
    }
    BlockRequest discard = request_of(BlockOperation::discard, 0, mib);
    ASSERT_TRUE(disk.run(discard).has_value());
    EXPECT_EQ(::lseek(disk.device->image().raw(), 0, SEEK_DATA), -1);
}

TEST(FileDevice, read_only_image_refuses_writes) {
    Disk disk = make_disk({"/dev/shm", {.read_only = true, .direct = false}});
    BlockRequest zeroes = request_of(BlockOperation::write_zeroes, 0, 512);
    const Status status = disk.run(zeroes);
    ASSERT_FALSE(status.has_value());
    EXPECT_EQ(status.error().code(), ErrorCode::permission_denied);
}

TEST(FileDevice, image_cut_short_is_an_error_not_zeros) {
    Disk disk = make_disk(tmpfs);
    ASSERT_EQ(::ftruncate(disk.device->image().raw(), 4096), 0);
    Buffer data(8192);
    const iovec segment = data.segment();
    BlockRequest read = request_of(BlockOperation::read, 0, 8192, {&segment, 1});
    const Status status = disk.run(read);
    ASSERT_FALSE(status.has_value());
    EXPECT_NE(status.error().to_string().find("made smaller"), std::string::npos);
}

TEST(FileDevice, refresh_sees_a_larger_image) {
    Disk disk = make_disk(tmpfs);
    ASSERT_EQ(::ftruncate(disk.device->image().raw(), 2 * disk_bytes), 0);
    auto geometry = disk.device->refresh();
    ASSERT_TRUE(geometry.has_value());
    EXPECT_EQ(geometry->bytes, 2 * disk_bytes);
    BlockRequest zeroes = request_of(BlockOperation::write_zeroes, disk_bytes, 512);
    EXPECT_TRUE(disk.run(zeroes).has_value());
}

TEST(FileDevice, destroyed_device_gives_the_lock_back_at_once) {
    Disk disk = make_disk(tmpfs);
    EXPECT_FALSE(open_image(disk.image.path(), tmpfs.options).has_value());
    disk.device.reset();
    EXPECT_TRUE(open_image(disk.image.path(), tmpfs.options).has_value());
}

TEST(FileDevice, destructor_finishes_what_is_in_flight) {
    Disk disk = make_disk(tmpfs);
    int done = 0;
    BlockRequest flush = request_of(BlockOperation::flush, 0, 0);
    flush.owner = &done;
    flush.done = [](BlockRequest& request, Status) noexcept {
        ++*static_cast<int*>(request.owner);
    };
    disk.device->submit(flush);
    disk.device.reset();
    EXPECT_EQ(done, 1);
}

} // namespace
} // namespace godwit::block
