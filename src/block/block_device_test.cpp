#include "block/block_device.h"

#include <array>
#include <limits>

namespace godwit::block {
namespace {

constexpr BlockGeometry disk{.bytes = 1U << 20U, .logical_block_bytes = 512};
constexpr BlockGeometry read_only_disk{.bytes = 1U << 20U, .read_only = true};

/// A write of two 512-byte segments at `offset` that says it has `bytes`.
ErrorCode write_error(std::uint64_t offset, std::uint64_t bytes, const BlockGeometry& geometry) {
    static std::array<char, 1024> data{};
    const std::array<iovec, 2> segments{iovec{.iov_base = data.data(), .iov_len = 512},
                                        iovec{.iov_base = data.data() + 512, .iov_len = 512}};
    BlockRequest request;
    request.operation = BlockOperation::write;
    request.offset = offset;
    request.bytes = bytes;
    request.segments = segments;
    const Status status = validate(request, geometry);
    return status.has_value() ? ErrorCode{} : status.error().code();
}

ErrorCode write_zeroes_error(std::uint64_t offset, std::uint64_t bytes) {
    BlockRequest request;
    request.operation = BlockOperation::write_zeroes;
    request.offset = offset;
    request.bytes = bytes;
    const Status status = validate(request, disk);
    return status.has_value() ? ErrorCode{} : status.error().code();
}

TEST(BlockRequest, last_blocks_are_valid) {
    EXPECT_EQ(write_error(disk.bytes - 1024, 1024, disk), ErrorCode{});
}

TEST(BlockRequest, beyond_the_end_is_refused) {
    EXPECT_EQ(write_error(disk.bytes - 512, 1024, disk), ErrorCode::invalid_argument);
    EXPECT_EQ(write_error(disk.bytes + 512, 1024, disk), ErrorCode::invalid_argument);
}

TEST(BlockRequest, range_that_wraps_around_is_refused) {
    constexpr std::uint64_t top = std::numeric_limits<std::uint64_t>::max() - 511;
    EXPECT_EQ(write_zeroes_error(top, 1024), ErrorCode::invalid_argument);
    EXPECT_EQ(write_zeroes_error(512, top), ErrorCode::invalid_argument);
}

TEST(BlockRequest, partial_blocks_are_refused) {
    EXPECT_EQ(write_error(1, 1024, disk), ErrorCode::invalid_argument);
    EXPECT_EQ(write_error(0, 1023, disk), ErrorCode::invalid_argument);
    EXPECT_EQ(write_error(0, 0, disk), ErrorCode::invalid_argument);
}

TEST(BlockRequest, segments_of_another_length_are_refused) {
    EXPECT_EQ(write_error(0, 512, disk), ErrorCode::invalid_argument);
    EXPECT_EQ(write_error(0, 1536, disk), ErrorCode::invalid_argument);
}

TEST(BlockRequest, write_to_read_only_disk_is_refused) {
    EXPECT_EQ(write_error(0, 1024, read_only_disk), ErrorCode::permission_denied);
}

TEST(BlockRequest, flush_of_read_only_disk_is_valid) {
    BlockRequest request;
    request.operation = BlockOperation::flush;
    EXPECT_TRUE(validate(request, read_only_disk).has_value());
}

TEST(BlockRequest, too_many_segments_are_refused) {
    static std::array<char, 512> data{};
    const std::vector<iovec> segments(segments_max + 1,
                                      iovec{.iov_base = data.data(), .iov_len = 512});
    BlockRequest request;
    request.bytes = segments.size() * 512;
    request.segments = segments;
    EXPECT_FALSE(validate(request, disk).has_value());
}

} // namespace
} // namespace godwit::block
