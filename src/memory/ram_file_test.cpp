#include "memory/ram_file.h"

#include <sys/stat.h>

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <filesystem>

namespace godwit::memory {
namespace {

class RamFileTest : public testing::Test {
  protected:
    void SetUp() override {
        path = testing::TempDir() + "godwit_ram_" + std::to_string(::getpid());
        std::filesystem::remove(path);
    }
    void TearDown() override { std::filesystem::remove(path); }

    RamBacking backing = make_backing();
    std::string path;
    std::atomic<bool> cancel{false};

    static RamBacking make_backing() {
        return GODWIT_MUST(
            RamBacking::create("test", {.bytes = 64 * mib, .kind = RamKind::memfd, .path = {}}));
    }
    static void fill(GuestMemory& memory) {
        for (const std::uint64_t page : {0ULL, 1ULL, 700ULL, 16383ULL}) {
            GODWIT_ASSERT(memory.store(Gpa{page * page_size + 8}, page + 1).has_value());
        }
    }
};

TEST_F(RamFileTest, only_pages_with_content_are_written_and_read_back) {
    auto memory = GODWIT_MUST(GuestMemory::map(backing, sys::MapMode::shared));
    fill(*memory);
    const auto result = GODWIT_MUST(write_ram_file(*memory, backing.fd(), path, {}, cancel));
    EXPECT_EQ(result.written_bytes, 4 * page_size);
    struct stat info{};
    ASSERT_EQ(::stat(path.c_str(), &info), 0);
    EXPECT_EQ(static_cast<std::uint64_t>(info.st_size), 64 * mib);
    EXPECT_LT(info.st_blocks * 512, 1 << 20);

    const RamBacking restored =
        GODWIT_MUST(RamBacking::adopt(GODWIT_MUST(sys::open(path, O_RDONLY)), backing.spec()));
    auto copy = GODWIT_MUST(GuestMemory::map(restored, sys::MapMode::private_copy));
    EXPECT_EQ(GODWIT_MUST(copy->load<std::uint64_t>(Gpa{16383 * page_size + 8})), 16384U);
    EXPECT_EQ(GODWIT_MUST(copy->load<std::uint64_t>(Gpa{2 * page_size + 8})), 0U);
}

// RAM in a pool lies in pieces, in any order: the file has it in one.
TEST_F(RamFileTest, ram_in_runs_of_a_pool_is_written_and_copied_back_elsewhere) {
    RamSpec spec{.bytes = 32 * mib, .kind = RamKind::pool};
    spec.runs = {{.offset = 40 * mib, .bytes = 16 * mib}, {.offset = 2 * mib, .bytes = 16 * mib}};
    const RamBacking pieces =
        GODWIT_MUST(RamBacking::adopt(GODWIT_MUST(backing.fd().duplicate()), spec));
    auto memory = GODWIT_MUST(GuestMemory::map(pieces, sys::MapMode::shared));
    const std::array<std::uint64_t, 3> pages{1, 4096, 8191}; // 4096: the first of the second run.
    for (const std::uint64_t page : pages) {
        ASSERT_TRUE(memory->store(Gpa{page * page_size}, page).has_value());
    }
    const auto result =
        GODWIT_MUST(write_ram_file(*memory, backing.fd(), path, {}, cancel, spec.runs));
    EXPECT_EQ(result.written_bytes, 3 * page_size);

    const RamBacking other = make_backing();
    spec.runs = {{.offset = 4 * mib, .bytes = 4 * mib}, {.offset = 16 * mib, .bytes = 28 * mib}};
    ASSERT_TRUE(copy_ram(GODWIT_MUST(sys::open(path, O_RDONLY)), other.fd(), 32 * mib, spec.runs)
                    .has_value());
    const RamBacking placed =
        GODWIT_MUST(RamBacking::adopt(GODWIT_MUST(other.fd().duplicate()), spec));
    auto copy = GODWIT_MUST(GuestMemory::map(placed, sys::MapMode::shared));
    for (const std::uint64_t page : pages) {
        EXPECT_EQ(GODWIT_MUST(copy->load<std::uint64_t>(Gpa{page * page_size})), page);
    }
}

TEST_F(RamFileTest, private_changes_of_a_restored_machine_are_written_too) {
    const RamBacking file =
        GODWIT_MUST(RamBacking::adopt(GODWIT_MUST(backing.fd().duplicate()), backing.spec()));
    auto memory = GODWIT_MUST(GuestMemory::map(file, sys::MapMode::private_copy));
    ASSERT_TRUE(memory->store(Gpa{5 * page_size}, std::uint64_t{9}).has_value());
    const auto result = GODWIT_MUST(write_ram_file(*memory, file.fd(), path, {}, cancel));
    EXPECT_EQ(result.written_bytes, page_size);
}

TEST_F(RamFileTest, cancelled_write_leaves_no_file) {
    auto memory = GODWIT_MUST(GuestMemory::map(backing, sys::MapMode::shared));
    fill(*memory);
    cancel = true;
    const auto result = write_ram_file(*memory, backing.fd(), path, {}, cancel);
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().code(), ErrorCode::cancelled);
    EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(RamFileTest, existing_file_is_not_overwritten) {
    {
        const auto file = GODWIT_MUST(sys::open(path, O_WRONLY | O_CREAT));
    }
    auto memory = GODWIT_MUST(GuestMemory::map(backing, sys::MapMode::shared));
    EXPECT_FALSE(write_ram_file(*memory, backing.fd(), path, {}, cancel).has_value());
    EXPECT_TRUE(std::filesystem::exists(path));
}

TEST_F(RamFileTest, copy_has_the_same_bytes) {
    auto memory = GODWIT_MUST(GuestMemory::map(backing, sys::MapMode::shared));
    fill(*memory);
    const RamBacking other = make_backing();
    ASSERT_TRUE(copy_ram(backing.fd(), other.fd(), 64 * mib).has_value());
    auto copy = GODWIT_MUST(GuestMemory::map(other, sys::MapMode::shared));
    EXPECT_EQ(GODWIT_MUST(copy->load<std::uint64_t>(Gpa{700 * page_size + 8})), 701U);
}

} // namespace
} // namespace godwit::memory
