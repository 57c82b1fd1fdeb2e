#include "block/move/disk_destination.h"

#include "base/log.h"
#include "base/scope_guard.h"
#include "block/image.h"

#include <sys/stat.h>

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>

namespace godwit::block {

namespace {

constexpr mode_t image_mode = 0600;

bool same_object(const struct stat& one, const struct stat& other) {
    if (S_ISBLK(one.st_mode) && S_ISBLK(other.st_mode)) {
        return one.st_rdev == other.st_rdev;
    }
    return one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

/// The lock would refuse these as well, but not say whose they are.
Status check_not_own(const DestinationWish& wish) {
    struct stat there{};
    if (::stat(wish.path.c_str(), &there) != 0) {
        return ok(); // Opening says what is wrong.
    }
    for (const OwnImage& own : wish.own) {
        struct stat mine{};
        if (::fstat(own.image->raw(), &mine) == 0 && same_object(there, mine)) {
            return Error(ErrorCode::invalid_argument,
                         "'" + wish.path + "' is where " + own.name +
                             " lies already: name another place");
        }
    }
    return ok();
}

Status check_existing(const DestinationWish& wish) {
    std::error_code error;
    const bool device = std::filesystem::is_block_file(wish.path, error);
    if (wish.existing == Existing::anything || (wish.existing == Existing::devices && device)) {
        return ok();
    }
    return Error(ErrorCode::already_exists,
                 "'" + wish.path + "' exists already: name a file that does not" +
                     (wish.existing == Existing::devices ? ", or a block device" : ""));
}

/// True if the file was made here.
Result<bool> ensure_file(const DestinationWish& wish) {
    const Result<sys::Fd> made =
        sys::open(wish.path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, image_mode);
    if (!made.has_value()) {
        if (made.error().os_errno() == EEXIST) {
            GODWIT_TRY(check_existing(wish));
            return false;
        }
        if (made.error().os_errno() == ENOENT || made.error().os_errno() == ENOTDIR) {
            return Error(ErrorCode::not_found,
                         "the directory of '" + wish.path +
                             "' does not exist: make it, or name another place");
        }
        return Error(made.error()).with_context("the destination cannot be made");
    }
    ScopeGuard undo([&] { ::unlink(wish.path.c_str()); });
    if (::ftruncate(made->raw(), static_cast<off_t>(wish.bytes)) != 0 ||
        ::fsync(made->raw()) != 0) {
        return Error::from_errno(errno, "the destination '" + wish.path + "' cannot be made");
    }
    GODWIT_TRY(sys::sync_directory_of(wish.path));
    undo.commit();
    return true;
}

struct OpenImage {
    sys::Fd image;
    bool direct = false;
};

Result<OpenImage> open_place(const DestinationWish& wish, bool direct) {
    sys::Fd image = GODWIT_TRY(open_image(wish.path, {.read_only = false, .direct = direct}));
    const ImageFacts facts = GODWIT_TRY(inspect_image(image, wish.path));
    const std::uint32_t block = facts.geometry.logical_block_bytes;
    if (direct && !facts.block_device && wish.logical_block_bytes % block != 0) {
        return Error(ErrorCode::unsupported, "its blocks are too large without the page cache");
    }
    if (facts.geometry.bytes < wish.bytes) {
        return Error(ErrorCode::invalid_argument,
                     "the destination '" + wish.path + "' has " +
                         std::to_string(facts.geometry.bytes) + " bytes, the disk " +
                         std::to_string(wish.bytes) + ": make it at least as large");
    }
    return OpenImage{.image = std::move(image), .direct = direct};
}

/// Without the page cache if the disk is used so and the place can do it.
Result<OpenImage> open_as_possible(const DestinationWish& wish) {
    if (wish.direct) {
        Result<OpenImage> opened = open_place(wish, true);
        if (opened.has_value() || opened.error().code() != ErrorCode::unsupported) {
            return opened;
        }
        log::info("disk_move_through_page_cache",
                  {{"destination", wish.path}, {"reason", opened.error().to_string()}});
    }
    return open_place(wish, false);
}

} // namespace

Result<DiskDestination> DiskDestination::open(const DestinationWish& wish) {
    if (!std::filesystem::path(wish.path).is_absolute()) {
        return Error(ErrorCode::invalid_argument,
                     "the destination '" + wish.path + "' must be an absolute path");
    }
    GODWIT_TRY(check_not_own(wish));
    const bool created = GODWIT_TRY(ensure_file(wish));
    ScopeGuard undo([&] {
        if (created) {
            ::unlink(wish.path.c_str());
        }
    });
    OpenImage opened = GODWIT_TRY(open_as_possible(wish));
    undo.commit();
    return DiskDestination(wish.path, std::move(opened.image), opened.direct, created);
}

bool is_same_object(const sys::Fd& image, const std::string& path) {
    struct stat mine{};
    struct stat there{};
    return image.valid() && ::fstat(image.raw(), &mine) == 0 &&
           ::lstat(path.c_str(), &there) == 0 && same_object(mine, there);
}

void DiskDestination::remove() {
    if (!created_ || !is_same_object(image_, path_)) {
        return;
    }
    if (::unlink(path_.c_str()) != 0) {
        log::warn("disk_move_destination_left", {{"path", path_}});
    }
    created_ = false;
}

} // namespace godwit::block
