#include "control/disk_pool.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace godwit::control {
namespace {

class DiskPoolTest : public testing::Test {
  protected:
    DiskPoolTest()
        : root_(std::filesystem::path(testing::TempDir()) /
                ("disk-pool-" + std::to_string(::getpid()))) {
        std::error_code ignored;
        std::filesystem::create_directories(root_ / "a", ignored);
        std::filesystem::create_directories(root_ / "b", ignored);
        std::filesystem::create_directory_symlink(root_ / "a", root_ / "link", ignored);
    }
    ~DiskPoolTest() override {
        std::error_code ignored;
        std::filesystem::remove_all(root_, ignored);
    }
    [[nodiscard]] std::string at(const char* name) const { return (root_ / name).string(); }

    std::filesystem::path root_;
};

TEST_F(DiskPoolTest, bad_directories_are_refused) {
    std::ofstream(root_ / "file") << "x";
    for (const std::vector<std::string>& bad :
         {std::vector<std::string>{},
          std::vector<std::string>{"relative"},
          std::vector<std::string>{at("missing")},
          std::vector<std::string>{at("file")},
          std::vector<std::string>(pool_directories_max + 1, at("a"))}) {
        EXPECT_FALSE(DiskPool::open(bad).has_value());
    }
}

TEST_F(DiskPoolTest, names_are_free_and_given_once) {
    std::ofstream(root_ / "a/web1-disk0.raw") << "somebody's";
    Result<DiskPool> pool = DiskPool::open({at("a")});
    ASSERT_TRUE(pool.has_value()) << pool.error().to_string();
    EXPECT_TRUE(pool->take("web1", "disk0", 1)->path.ends_with("/a/web1-disk0-2.raw"));
    EXPECT_TRUE(pool->take("web1", "disk0", 1)->path.ends_with("/a/web1-disk0-3.raw"));
    EXPECT_TRUE(pool->take("web1", "disk1", 1)->path.ends_with("/a/web1-disk1.raw"));
    EXPECT_EQ(pool->wanted_bytes(), 3U);
}

TEST_F(DiskPoolTest, room_of_one_file_system_is_counted_once) {
    Result<DiskPool> one = DiskPool::open({at("a")});
    Result<DiskPool> both = DiskPool::open({at("a"), at("b"), at("link")});
    ASSERT_TRUE(one.has_value() && both.has_value());
    // Others use the file system as well; twice as much it is not.
    EXPECT_LT(both->free_bytes(), one->free_bytes() + one->free_bytes() / 2);
    const std::uint64_t most = both->free_bytes() * 3 / 4;
    EXPECT_TRUE(both->take("web1", "disk0", most).has_value());
    const Result<DiskPool::Place> more = both->take("web1", "disk1", most);
    ASSERT_FALSE(more.has_value());
    EXPECT_EQ(more.error().code(), ErrorCode::resource_exhausted);
}

TEST_F(DiskPoolTest, what_lies_there_is_found_through_links) {
    std::ofstream(root_ / "a/disk.raw") << "x";
    Result<DiskPool> pool = DiskPool::open({at("a")});
    ASSERT_TRUE(pool.has_value());
    EXPECT_TRUE(pool->holds(at("a/disk.raw")));
    EXPECT_TRUE(pool->holds(at("link/disk.raw")));
    EXPECT_FALSE(pool->holds(at("b/disk.raw")));
    EXPECT_FALSE(pool->holds(at("a/deeper/disk.raw")));
}

TEST_F(DiskPoolTest, files_of_one_directory_lie_on_one_device) {
    const Result<std::string> directory = device_of(at("a"));
    ASSERT_TRUE(directory.has_value());
    EXPECT_NE(directory->find(':'), std::string::npos);
    std::ofstream(root_ / "a/disk.raw") << "x";
    EXPECT_EQ(*directory, device_of(at("a/disk.raw")).value_or("none"));
    EXPECT_FALSE(device_of(at("missing")).has_value());
}

} // namespace
} // namespace godwit::control
