#include "sys/stream.h"

#include <gtest/gtest.h>

#include <array>

namespace godwit::sys {
namespace {

TEST(stream, pipe_carries_bytes_and_ends) {
    Pipe pipe = GODWIT_MUST(create_pipe()); // Descriptors are plenty in a test.
    const std::array<std::byte, 3> sent{std::byte{1}, std::byte{2}, std::byte{3}};
    EXPECT_EQ(GODWIT_MUST(write_some(pipe.write_end, sent)), 3U);
    std::array<std::byte, 8> got{};
    EXPECT_EQ(GODWIT_MUST(read_some(pipe.read_end, got)), 3U);
    EXPECT_EQ(got[2], std::byte{3});
    pipe.write_end.reset();
    EXPECT_EQ(GODWIT_MUST(read_some(pipe.read_end, got)), 0U);
}

TEST(stream, nonblocking_empty_pipe_is_busy) {
    const Pipe pipe = GODWIT_MUST(create_pipe());
    ASSERT_TRUE(set_nonblocking(pipe.read_end).has_value());
    std::array<std::byte, 8> got{};
    const Result<std::size_t> result = read_some(pipe.read_end, got);
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().code(), ErrorCode::busy);
    EXPECT_FALSE(
        GODWIT_MUST(wait_ready(pipe.read_end, Direction::input, std::chrono::milliseconds(0))));
    EXPECT_TRUE(
        GODWIT_MUST(wait_ready(pipe.write_end, Direction::output, std::chrono::milliseconds(0))));
}

} // namespace
} // namespace godwit::sys
