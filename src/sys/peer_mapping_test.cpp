#include "sys/peer_mapping.h"
#include "sys/stream.h"

#include <unistd.h>

namespace godwit::sys {
namespace {

constexpr std::uint64_t bytes = 64 * 1024;

struct PeerMappingTest : ::testing::Test {
    PeerMappingTest() : object(GODWIT_MUST(create_memfd("peer", bytes))) {} // memory is to be had
    Fd object;
};

TEST_F(PeerMappingTest, SharesWhatTheObjectHolds) {
    const auto mapping = PeerMapping::create(object, {.offset = 4096, .bytes = 8192});
    ASSERT_TRUE(mapping.has_value());
    EXPECT_EQ(mapping->bytes().size(), 8192U);
    mapping->bytes()[0] = std::byte{7};
    std::byte seen{};
    ASSERT_TRUE(pread_exact(object, std::span(&seen, 1), 4096).has_value());
    EXPECT_EQ(seen, std::byte{7});
    EXPECT_FALSE(mapping->torn());
}

TEST_F(PeerMappingTest, AnObjectThatShrinksTearsItsMappingAndNothingElse) {
    auto mapping = PeerMapping::create(object, {.offset = 0, .bytes = bytes});
    const auto other = PeerMapping::create(object, {.offset = 0, .bytes = 4096});
    ASSERT_TRUE(mapping.has_value() && other.has_value());
    mapping->bytes()[bytes - 1] = std::byte{1};
    ASSERT_EQ(::ftruncate(object.raw(), 4096), 0);
    EXPECT_EQ(mapping->bytes()[bytes - 1], std::byte{0});
    EXPECT_TRUE(mapping->torn());
    mapping->bytes()[bytes - 1] = std::byte{2};
    EXPECT_EQ(mapping->bytes()[bytes - 1], std::byte{2});
    EXPECT_FALSE(other->torn());
    EXPECT_EQ(other->bytes()[0], std::byte{0});
}

TEST_F(PeerMappingTest, RefusesPartsThatAreNotThere) {
    const auto code = [&](PeerMapping::Part part) {
        return PeerMapping::create(object, part).error().code();
    };
    EXPECT_EQ(code({.offset = 0, .bytes = 0}), ErrorCode::invalid_argument);
    EXPECT_EQ(code({.offset = 0, .bytes = bytes + 1}), ErrorCode::invalid_argument);
    EXPECT_EQ(code({.offset = bytes + 4096, .bytes = 1}), ErrorCode::invalid_argument);
    EXPECT_EQ(code({.offset = 512, .bytes = 4096}), ErrorCode::invalid_argument);
    EXPECT_EQ(code({.offset = ~std::uint64_t{4095}, .bytes = 8192}), ErrorCode::invalid_argument);
}

TEST_F(PeerMappingTest, RefusesWhatIsNoMemory) {
    const Pipe pipe = GODWIT_MUST(create_pipe()); // a pipe is to be had
    EXPECT_EQ(PeerMapping::create(pipe.read_end, {.offset = 0, .bytes = 4096}).error().code(),
              ErrorCode::invalid_argument);
}

TEST_F(PeerMappingTest, AnUnrelatedFaultStillEndsTheProcess) {
    const auto guarded = PeerMapping::create(object, {.offset = 0, .bytes = 4096});
    ASSERT_TRUE(guarded.has_value());
    const auto plain = MappedRegion::create(object, 0, bytes, MapMode::shared);
    ASSERT_TRUE(plain.has_value());
    ASSERT_EQ(::ftruncate(object.raw(), 4096), 0);
    EXPECT_DEATH(plain->data()[bytes - 1] = std::byte{1}, "");
}

} // namespace
} // namespace godwit::sys
