#include "virtio/inflight_ring.h"
#include "virtio/testing/driver_queue.h"

#include <cstring>

namespace godwit::virtio {
namespace {

using testing::bytes_of;
using testing::DriverQueue;

constexpr std::uint16_t size = 16;

struct InflightRingTest : ::testing::Test {
    /// What a process finds that opens the record.
    InflightRing open() {
        return GODWIT_MUST(InflightRing::open(as_bytes(), size, nullptr)); // a good one
    }
    std::span<std::byte> as_bytes() { return std::as_writable_bytes(std::span(words)); }
    /// The device's side as a new process sets it up: from the used index in memory.
    VirtQueue queue() {
        QueueState state = driver.state();
        state.next_used = GODWIT_MUST(driver.memory().load<std::uint16_t>( // lies in RAM
            Gpa{state.device_area.value + 2}));
        VirtQueue made =
            GODWIT_MUST(VirtQueue::create(driver.shared_memory(), state, {})); // a good one
        made.keep_record(open());
        // As a device does that has been given nothing back: what the record says stays.
        EXPECT_TRUE(made.take_given_back({}).has_value());
        return made;
    }
    std::vector<std::uint64_t> words =
        std::vector<std::uint64_t>(InflightRing::bytes_for(size) / 8);
    DriverQueue driver{testing::make_memory(), {.size = size}};
    Chain chain;
};

TEST_F(InflightRingTest, AFreshRecordKeepsTheBase) {
    EXPECT_FALSE(open().recover(7).has_value());
    EXPECT_EQ(open().recover(7)->size(), 0U);
}

TEST_F(InflightRingTest, WhatWasNotGivenBackIsPoppedAgainInOrderThenTheRest) {
    std::vector<std::uint16_t> heads;
    {
        VirtQueue first = queue();
        std::vector<Chain> taken(3);
        for (Chain& one : taken) {
            heads.push_back(driver.chain().readable(bytes_of("x")).offer().head);
            ASSERT_TRUE(*first.pop(one));
        }
        first.push(taken[1], 0);
    }
    const std::uint16_t later = driver.chain().readable(bytes_of("y")).offer().head;
    VirtQueue second = queue();
    EXPECT_EQ(second.left_over(), 2U);
    EXPECT_TRUE(second.has_available());
    for (const std::uint16_t expected : {heads[0], heads[2], later}) {
        ASSERT_TRUE(*second.pop(chain));
        EXPECT_EQ(chain.head, expected);
        second.push(chain, 0);
    }
    EXPECT_FALSE(*second.pop(chain));
    EXPECT_EQ(queue().left_over(), 0U);
}

TEST_F(InflightRingTest, APutBackChainComesAgain) {
    VirtQueue first = queue();
    driver.chain().readable(bytes_of("x")).offer();
    ASSERT_TRUE(*first.pop(chain));
    first.undo_pop();
    EXPECT_EQ(queue().left_over(), 0U);
    ASSERT_TRUE(*first.pop(chain));
    VirtQueue second = queue();
    ASSERT_TRUE(*second.pop(chain));
    second.undo_pop();
    EXPECT_EQ(second.left_over(), 1U);
    EXPECT_EQ(queue().left_over(), 1U);
}

TEST_F(InflightRingTest, EndedBetweenTheUsedIndexAndItsNoteIsNotDoneAgain) {
    InflightRing record = open();
    ASSERT_FALSE(record.recover(0).has_value());
    record.begin(3);
    record.begin(5);
    record.prepare_end(3);
    // Here the driver saw index 1, and the process ended.
    const auto heads = open().recover(1);
    ASSERT_TRUE(heads.has_value());
    EXPECT_EQ(*heads, std::vector<std::uint16_t>{5});
}

TEST_F(InflightRingTest, EndedBeforeTheUsedIndexIsDoneAgain) {
    InflightRing record = open();
    ASSERT_FALSE(record.recover(0).has_value());
    record.begin(3);
    record.prepare_end(3);
    EXPECT_EQ(*open().recover(0), std::vector<std::uint16_t>{3});
}

TEST_F(InflightRingTest, AnotherVersionSizeOrTooLittleMemoryIsRefused) {
    ASSERT_FALSE(open().recover(0).has_value());
    EXPECT_EQ(InflightRing::open(as_bytes(), 8, nullptr).error().code(), ErrorCode::corrupt);
    EXPECT_EQ(InflightRing::open(as_bytes().first(64), size, nullptr).error().code(),
              ErrorCode::invalid_argument);
    words[1] = 2; // version
    EXPECT_EQ(InflightRing::open(as_bytes(), size, nullptr).error().code(), ErrorCode::corrupt);
}

TEST_F(InflightRingTest, ARecordFullOfNonsenseIsTakenWithoutHarm) {
    ASSERT_FALSE(open().recover(0).has_value());
    const std::uint64_t header = words[1];
    std::memset(words.data() + 2, 0xff, (words.size() - 2) * 8);
    words[1] = header | 0xffffULL << 32U; // the last batch's head is none
    VirtQueue again = queue();
    EXPECT_EQ(again.left_over(), size);
    // Every descriptor is empty: the first is refused, as from any broken driver.
    EXPECT_FALSE(again.pop(chain).has_value());
}

} // namespace
} // namespace godwit::virtio
