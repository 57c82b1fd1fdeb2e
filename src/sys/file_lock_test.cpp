#include "sys/directory_watch.h"
#include "sys/file_lock.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <optional>

namespace godwit::sys {
namespace {

std::string fresh_directory(const std::string& name) {
    const std::string path =
        (std::filesystem::temp_directory_path() / (name + std::to_string(::getpid()))).string();
    std::filesystem::remove_all(path);
    std::filesystem::create_directory(path);
    return path;
}

TEST(file_lock, second_holder_is_refused_until_the_first_lets_go) {
    const std::string directory = fresh_directory("godwit-lock-");
    const std::string path = directory + "/lock";
    std::optional<FileLock> first = GODWIT_MUST(FileLock::acquire(path));
    const Result<FileLock> second = FileLock::acquire(path);
    ASSERT_FALSE(second.has_value());
    EXPECT_EQ(second.error().code(), ErrorCode::busy);
    first.reset();
    EXPECT_TRUE(FileLock::acquire(path).has_value());
    std::filesystem::remove_all(directory);
}

TEST(directory_watch, new_name_and_end_are_seen) {
    const std::string directory = fresh_directory("godwit-watch-");
    const DirectoryWatch watch = GODWIT_MUST(DirectoryWatch::create(directory));
    EXPECT_FALSE(watch.drain());
    std::filesystem::create_directory(directory + "/a");
    EXPECT_TRUE(watch.drain());
    EXPECT_FALSE(watch.drain());
    std::filesystem::remove_all(directory);
    EXPECT_TRUE(watch.drain());
    EXPECT_FALSE(DirectoryWatch::create(directory).has_value());
}

} // namespace
} // namespace godwit::sys
