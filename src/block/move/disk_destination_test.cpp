#include "base/units.h"
#include "block/image.h"
#include "block/move/disk_destination.h"
#include "block/testing/temporary_image.h"

#include <sys/stat.h>

#include <gtest/gtest.h>
#include <unistd.h>

namespace godwit::block {
namespace {

using testing::TemporaryImage;

constexpr std::uint64_t disk_bytes = 2 * mib;

struct Place {
    TemporaryImage source;
    sys::Fd image;
    OwnImage own;
    std::string fresh; ///< Nothing is there.

    Place()
        : source(GODWIT_MUST(TemporaryImage::create("/dev/shm", disk_bytes))), // There is room.
          image(GODWIT_MUST(open_image(source.path(), {}))),                   // Just made.
          own{.name = "disk0", .image = &image}, fresh(source.path() + ".there") {}
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;
    ~Place() { ::unlink(fresh.c_str()); }
    Result<DiskDestination> open(const std::string& path) const {
        return DiskDestination::open(
            {.path = path, .bytes = disk_bytes, .logical_block_bytes = 512, .own = {&own, 1}});
    }
    bool refuses(const std::string& path, const char* word) const {
        const Result<DiskDestination> opened = open(path);
        return !opened.has_value() && opened.error().to_string().find(word) != std::string::npos;
    }
};

bool exists(const std::string& path) {
    struct stat info{};
    return ::stat(path.c_str(), &info) == 0;
}

TEST(DiskDestination, file_that_is_missing_is_made_sparse_and_locked) {
    const Place place;
    const Result<DiskDestination> made = place.open(place.fresh);
    ASSERT_TRUE(made.has_value()) << made.error().to_string();
    EXPECT_TRUE(made->created());
    EXPECT_TRUE(made->direct());
    struct stat info{};
    ASSERT_EQ(::stat(place.fresh.c_str(), &info), 0);
    EXPECT_EQ(info.st_size, static_cast<off_t>(disk_bytes));
    EXPECT_EQ(info.st_blocks, 0);
    EXPECT_TRUE(place.refuses(place.fresh, "in use"));
    EXPECT_TRUE(exists(place.fresh)) << "who did not make it does not remove it";
}

TEST(DiskDestination, what_must_be_made_is_not_taken) {
    const Place place;
    const TemporaryImage there =
        GODWIT_MUST(TemporaryImage::create("/dev/shm", disk_bytes)); // There is room.
    const auto made = [](const std::string& path) {
        return DiskDestination::open({.path = path,
                                      .bytes = disk_bytes,
                                      .logical_block_bytes = 512,
                                      .own = {},
                                      .existing = Existing::nothing});
    };
    const Result<DiskDestination> taken = made(there.path());
    ASSERT_FALSE(taken.has_value());
    EXPECT_EQ(taken.error().code(), ErrorCode::already_exists);
    EXPECT_TRUE(made(place.fresh).has_value());
}

TEST(DiskDestination, only_what_was_made_is_removed_and_only_while_it_is_that) {
    const Place place;
    Result<DiskDestination> made = place.open(place.fresh);
    ASSERT_TRUE(made.has_value());
    made->remove();
    EXPECT_FALSE(exists(place.fresh));

    const TemporaryImage there =
        GODWIT_MUST(TemporaryImage::create("/dev/shm", disk_bytes)); // Room.
    Result<DiskDestination> opened = place.open(there.path());
    ASSERT_TRUE(opened.has_value());
    EXPECT_FALSE(opened->created());
    opened->remove();
    EXPECT_TRUE(exists(there.path()));

    made = place.open(place.fresh);
    ASSERT_TRUE(made.has_value());
    ASSERT_EQ(::unlink(place.fresh.c_str()), 0);
    ASSERT_TRUE(sys::write_file_atomically(place.fresh, "somebody else's").has_value());
    made->remove();
    EXPECT_TRUE(exists(place.fresh));
}

TEST(DiskDestination, wrong_places_are_refused_by_name_and_nothing_is_left) {
    const Place place;
    const TemporaryImage small =
        GODWIT_MUST(TemporaryImage::create("/dev/shm", disk_bytes - 512)); // As above.
    EXPECT_TRUE(place.refuses(small.path(), "at least as large"));
    EXPECT_TRUE(place.refuses(place.source.path(), "is where disk0 lies already"));
    EXPECT_TRUE(place.refuses("/dev/shm", "is a directory"));
    EXPECT_TRUE(place.refuses("/dev/shm/no/such", "does not exist"));
    EXPECT_TRUE(place.refuses("there.raw", "absolute"));
    EXPECT_TRUE(place.refuses("/dev/null", "no disk"));
    const std::string link = place.fresh + ".link";
    ASSERT_EQ(::symlink(place.source.path().c_str(), link.c_str()), 0);
    EXPECT_TRUE(place.refuses(link, "is where disk0 lies already"));
    ::unlink(link.c_str());
    ASSERT_EQ(::symlink("/dev/shm/nowhere", link.c_str()), 0);
    EXPECT_FALSE(place.open(link).has_value());
    EXPECT_FALSE(exists("/dev/shm/nowhere"));
    ::unlink(link.c_str());
}

} // namespace
} // namespace godwit::block
