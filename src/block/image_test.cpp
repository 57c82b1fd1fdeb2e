#include "base/units.h"
#include "block/image.h"
#include "block/testing/temporary_image.h"

#include <sys/stat.h>
#include <sys/wait.h>

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

namespace godwit::block {
namespace {

using testing::TemporaryImage;

constexpr ImageOptions buffered{.direct = false};
constexpr ImageOptions buffered_read_only{.read_only = true, .direct = false};

TemporaryImage make_image(std::uint64_t bytes = mib) {
    return GODWIT_MUST(TemporaryImage::create("/dev/shm", bytes)); // tmpfs is there and has room.
}

/// The error of opening `path`, or of inspecting what was opened.
Error open_error(const std::string& path, const ImageOptions& options) {
    auto image = open_image(path, options);
    if (!image.has_value()) {
        return image.error();
    }
    auto facts = inspect_image(*image, path);
    return facts.has_value() ? Error(ErrorCode::internal, "it opened") : facts.error();
}

TEST(OpenImage, missing_is_not_found_and_says_what_to_do) {
    const Error error = open_error("/dev/shm/no-such-image", buffered);
    EXPECT_EQ(error.code(), ErrorCode::not_found);
    EXPECT_NE(error.to_string().find("truncate -s"), std::string::npos);
}

TEST(OpenImage, directory_is_refused) {
    const Error error = open_error("/dev/shm", buffered);
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_NE(error.to_string().find("is a directory"), std::string::npos);
}

TEST(OpenImage, pipe_is_refused_without_blocking) {
    const std::string path = "/dev/shm/godwit-pipe-" + std::to_string(::getpid());
    ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
    const Error error = open_error(path, buffered);
    ::unlink(path.c_str());
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
}

TEST(OpenImage, no_direct_on_proc_names_the_option) {
    const Error error = open_error("/proc/self/status", {.read_only = true});
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
    EXPECT_NE(error.to_string().find("\"direct\": false"), std::string::npos);
}

TEST(OpenImage, odd_size_is_refused) {
    const Error error = open_error(make_image(1000).path(), buffered);
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_NE(error.to_string().find("1000 bytes"), std::string::npos);
}

TEST(OpenImage, empty_is_refused) {
    EXPECT_EQ(open_error(make_image(0).path(), buffered).code(), ErrorCode::invalid_argument);
}

TEST(OpenImage, second_writer_is_busy) {
    const TemporaryImage image = make_image();
    auto first = open_image(image.path(), buffered);
    ASSERT_TRUE(first.has_value());
    const Error error = open_error(image.path(), buffered);
    EXPECT_EQ(error.code(), ErrorCode::busy);
    EXPECT_NE(error.to_string().find("in use by another process"), std::string::npos);
}

TEST(OpenImage, reader_beside_writer_is_busy) {
    const TemporaryImage image = make_image();
    auto first = open_image(image.path(), buffered);
    ASSERT_TRUE(first.has_value());
    EXPECT_EQ(open_error(image.path(), buffered_read_only).code(), ErrorCode::busy);
}

TEST(OpenImage, two_readers_are_fine) {
    const TemporaryImage image = make_image();
    auto first = open_image(image.path(), buffered_read_only);
    EXPECT_TRUE(open_image(image.path(), buffered_read_only).has_value());
}

TEST(OpenImage, lock_goes_with_a_copy_of_the_descriptor) {
    const TemporaryImage image = make_image();
    auto first = open_image(image.path(), buffered);
    ASSERT_TRUE(first.has_value());
    auto copy = first->duplicate();
    first->reset();
    EXPECT_EQ(open_error(image.path(), buffered).code(), ErrorCode::busy);
    copy->reset();
    EXPECT_TRUE(open_image(image.path(), buffered).has_value());
}

TEST(OpenImage, classic_lock_names_its_process) {
    const TemporaryImage image = make_image();
    const pid_t child = ::fork();
    if (child == 0) {
        const auto file = sys::open(image.path(), O_RDWR);
        struct flock lock{};
        lock.l_type = F_WRLCK;
        ::_exit(::fcntl(file->raw(), F_SETLK, &lock) == 0 && ::raise(SIGSTOP) == 0 ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, WUNTRACED), child);
    const Error error = open_error(image.path(), buffered);
    ::kill(child, SIGKILL);
    ::waitpid(child, &status, 0);
    EXPECT_NE(error.to_string().find("process " + std::to_string(child)), std::string::npos)
        << error.to_string();
}

TEST(InspectImage, read_only_image_says_so) {
    const TemporaryImage image = make_image();
    auto opened = open_image(image.path(), buffered_read_only);
    ASSERT_TRUE(opened.has_value());
    auto facts = inspect_image(*opened, image.path());
    ASSERT_TRUE(facts.has_value());
    EXPECT_TRUE(facts->geometry.read_only);
    EXPECT_FALSE(facts->geometry.can_discard);
    EXPECT_FALSE(facts->direct);
}

TEST(InspectImage, direct_image_on_tmpfs_needs_no_alignment) {
    const TemporaryImage image = make_image();
    auto opened = open_image(image.path(), {});
    ASSERT_TRUE(opened.has_value()) << opened.error().to_string();
    auto facts = inspect_image(*opened, image.path());
    ASSERT_TRUE(facts.has_value());
    EXPECT_TRUE(facts->direct);
    EXPECT_EQ(facts->geometry.bytes, mib);
    EXPECT_EQ(facts->geometry.logical_block_bytes, 512U);
}

} // namespace
} // namespace godwit::block
