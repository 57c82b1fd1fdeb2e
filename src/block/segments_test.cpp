#include "block/segments.h"

#include <array>

namespace godwit::block {
namespace {

/// Three segments over one text: "abc" "defg" "h".
struct Fixture {
    std::string text = "abcdefgh";
    std::array<iovec, 3> segments{iovec{.iov_base = text.data(), .iov_len = 3},
                                  iovec{.iov_base = text.data() + 3, .iov_len = 4},
                                  iovec{.iov_base = text.data() + 7, .iov_len = 1}};
};

TEST(Segments, slice_within_and_across) {
    const Fixture fixture;
    std::vector<iovec> out;
    slice(fixture.segments, 2, 3, out);
    ASSERT_EQ(out.size(), 2U);
    EXPECT_EQ(out[0].iov_base, fixture.text.data() + 2);
    EXPECT_EQ(out[0].iov_len, 1U);
    EXPECT_EQ(out[1].iov_base, fixture.text.data() + 3);
    EXPECT_EQ(out[1].iov_len, 2U);
}

TEST(Segments, gather_every_range_gives_its_bytes) {
    const Fixture fixture;
    for (std::size_t start = 0; start <= 8; ++start) {
        for (std::size_t length = 0; start + length <= 8; ++length) {
            std::string out(length, '?');
            gather(fixture.segments, start, std::as_writable_bytes(std::span(out)));
            EXPECT_EQ(out, std::string("abcdefgh").substr(start, length));
        }
    }
}

TEST(Segments, scatter_every_range_changes_only_it) {
    for (std::size_t start = 0; start <= 8; ++start) {
        for (std::size_t length = 0; start + length <= 8; ++length) {
            const Fixture fixture;
            const std::string in(length, 'X');
            scatter(std::as_bytes(std::span(in)), fixture.segments, start);
            EXPECT_EQ(fixture.text, std::string("abcdefgh").replace(start, length, in));
        }
    }
}

TEST(Segments, is_aligned_looks_at_address_and_length) {
    alignas(512) std::array<char, 1024> memory{};
    const iovec good{.iov_base = memory.data(), .iov_len = 512};
    const iovec shifted{.iov_base = memory.data() + 4, .iov_len = 512};
    const iovec odd{.iov_base = memory.data(), .iov_len = 100};
    constexpr MemoryAlignment wanted{.address_bytes = 512, .length_bytes = 512};
    EXPECT_TRUE(is_aligned({&good, 1}, wanted));
    EXPECT_FALSE(is_aligned({&shifted, 1}, wanted));
    EXPECT_FALSE(is_aligned({&odd, 1}, wanted));
    EXPECT_TRUE(is_aligned({&odd, 1}, {}));
}

} // namespace
} // namespace godwit::block
