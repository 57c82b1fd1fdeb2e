#include "memory/warm.h"

#include <sys/stat.h>

#include <gtest/gtest.h>

#include <vector>

namespace godwit::memory {
namespace {

class Warm : public ::testing::Test {
  protected:
    void SetUp() override {
        auto backing = RamBacking::create("warm", {.bytes = 64 * mib});
        ASSERT_TRUE(backing.has_value());
        backing_ = std::make_unique<RamBacking>(std::move(*backing));
        // Two runs of data in a file of holes.
        const std::vector<std::byte> page(page_size, std::byte{1});
        for (const std::uint64_t at : {std::uint64_t{2 * mib}, std::uint64_t{40 * mib}}) {
            ASSERT_TRUE(sys::pwrite_all(backing_->fd(), page, at).has_value());
        }
        auto memory = GuestMemory::map(*backing_, sys::MapMode::shared);
        ASSERT_TRUE(memory.has_value());
        memory_ = std::move(*memory);
    }
    std::uint64_t backing_bytes() const {
        struct stat info{};
        EXPECT_EQ(::fstat(backing_->fd().raw(), &info), 0);
        return static_cast<std::uint64_t>(info.st_blocks) * 512;
    }
    std::unique_ptr<RamBacking> backing_;
    std::shared_ptr<GuestMemory> memory_;
};

TEST_F(Warm, maps_what_is_there_and_makes_nothing_new) {
    const std::uint64_t before = backing_bytes();
    std::vector<std::uint64_t> starts;
    const auto mapped = warm(*memory_, *backing_, [&](WarmStep step) {
        starts.push_back(step.start.value);
        return true;
    });
    ASSERT_TRUE(mapped.has_value()) << mapped.error().to_string();
    EXPECT_EQ(*mapped, before);
    EXPECT_EQ(starts, (std::vector<std::uint64_t>{2 * mib, 40 * mib}));
    EXPECT_EQ(backing_bytes(), before);
}

TEST_F(Warm, ends_when_it_is_told_to) {
    int steps = 0;
    const auto mapped = warm(*memory_, *backing_, [&](WarmStep) { return ++steps < 1; });
    ASSERT_TRUE(mapped.has_value());
    EXPECT_EQ(steps, 1);
    EXPECT_LT(*mapped, backing_bytes());
}

} // namespace
} // namespace godwit::memory
