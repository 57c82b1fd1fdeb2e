#include "block/image.h"

#include "base/units.h"

#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include <fcntl.h>

#include <cerrno>

namespace godwit::block {

namespace {

std::string quoted(const std::string& path) {
    return "the disk image '" + path + "'";
}

/// A directory, pipe or terminal must not be opened at all: opening can block or have effects.
Result<struct stat> stat_image(const std::string& path) {
    struct stat info{};
    if (::stat(path.c_str(), &info) != 0) {
        if (errno == ENOENT) {
            return Error(ErrorCode::not_found,
                         quoted(path) + " does not exist: make one with 'truncate -s 10G " + path +
                             "' or give another path");
        }
        return Error::from_errno(errno, quoted(path) + " cannot be reached");
    }
    if (!S_ISREG(info.st_mode) && !S_ISBLK(info.st_mode)) {
        return Error(ErrorCode::invalid_argument,
                     quoted(path) + (S_ISDIR(info.st_mode) ? " is a directory" : " is no disk") +
                         ": give a raw image file or a block device");
    }
    return info;
}

Error open_error(int os_errno, const std::string& path, const ImageOptions& options) {
    if (os_errno == EINVAL && options.direct) {
        return {ErrorCode::unsupported,
                quoted(path) + " lies on a file system without O_DIRECT: attach it with "
                               "\"direct\": false"};
    }
    if (os_errno == EBUSY) {
        return {ErrorCode::busy, quoted(path) + " is mounted or otherwise used by this host"};
    }
    if ((os_errno == EROFS || os_errno == EACCES) && !options.read_only) {
        return Error::from_errno(
            os_errno, quoted(path) + " cannot be opened for writing (attach it read-only?)");
    }
    return Error::from_errno(os_errno, quoted(path) + " cannot be opened");
}

/// Who holds a lock against us, as far as the kernel tells.
std::string lock_holder(const sys::Fd& image, struct flock lock) {
    if (::fcntl(image.raw(), F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK ||
        lock.l_pid <= 0) {
        return "another process"; // A lock of an open file description has no process.
    }
    return "process " + std::to_string(lock.l_pid);
}

Status lock_image(const sys::Fd& image, const std::string& path, const ImageOptions& options) {
    struct flock lock{};
    lock.l_type = options.read_only ? F_RDLCK : F_WRLCK;
    lock.l_whence = SEEK_SET; // From 0 with length 0: all of it.
    if (::fcntl(image.raw(), F_OFD_SETLK, &lock) == 0) {
        return ok();
    }
    if (errno != EAGAIN && errno != EACCES) {
        return Error::from_errno(errno, quoted(path) + " cannot be locked");
    }
    return Error(ErrorCode::busy,
                 quoted(path) + " is in use by " + lock_holder(image, lock) +
                     (options.read_only
                          ? ", which writes to it: stop that first"
                          : ": stop that first, or attach it read-only on both sides"));
}

} // namespace

Result<sys::Fd> open_image(const std::string& path, const ImageOptions& options) {
    const struct stat info = GODWIT_TRY(stat_image(path));
    int flags = (options.read_only ? O_RDONLY : O_RDWR) | (options.direct ? O_DIRECT : 0);
    if (S_ISBLK(info.st_mode) && !options.read_only) {
        flags |= O_EXCL; // On a block device: not while the host has it mounted (open(2)).
    }
    Result<sys::Fd> image = sys::open(path, flags);
    if (!image.has_value()) {
        return open_error(image.error().os_errno(), path, options);
    }
    GODWIT_TRY(lock_image(*image, path, options));
    return image;
}

namespace {

Status read_block_device(const sys::Fd& image, ImageFacts& facts) {
    int logical = 0;
    unsigned physical = 0;
    if (::ioctl(image.raw(), BLKGETSIZE64, &facts.geometry.bytes) != 0 ||
        ::ioctl(image.raw(), BLKSSZGET, &logical) != 0 ||
        ::ioctl(image.raw(), BLKPBSZGET, &physical) != 0) {
        return Error::from_errno(errno, "ask a block device for its size");
    }
    facts.block_device = true;
    facts.geometry.logical_block_bytes = static_cast<std::uint32_t>(logical);
    facts.geometry.physical_block_bytes = physical;
    return ok();
}

/// What the file system wants of direct transfers. tmpfs takes any: it has no device below.
Status read_direct_alignment(const sys::Fd& image, ImageFacts& facts) {
    struct statx info{};
    if (::statx(image.raw(), "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) != 0) {
        return Error::from_errno(errno, "ask for the alignment of direct transfers");
    }
    if ((info.stx_mask & STATX_DIOALIGN) != 0 && info.stx_dio_offset_align != 0) {
        facts.transfer_alignment_bytes = info.stx_dio_offset_align;
        facts.geometry.memory_alignment_bytes = std::max(1U, info.stx_dio_mem_align);
        return ok();
    }
    struct statfs system{};
    if (::fstatfs(image.raw(), &system) != 0) {
        return Error::from_errno(errno, "ask which file system this is");
    }
    if (system.f_type != TMPFS_MAGIC) {
        // It opened with O_DIRECT and does not say more: what every such file system accepts.
        facts.transfer_alignment_bytes = page_size;
        facts.geometry.memory_alignment_bytes = page_size;
    }
    return ok();
}

bool device_discards(const sys::Fd& image) {
    struct stat info{};
    if (::fstat(image.raw(), &info) != 0) {
        return false;
    }
    const std::string queue = "/sys/dev/block/" + std::to_string(major(info.st_rdev)) + ":" +
                              std::to_string(minor(info.st_rdev));
    // A partition has its queue one folder up.
    for (const char* place : {"/queue/discard_max_bytes", "/../queue/discard_max_bytes"}) {
        const Result<std::string> text = sys::read_file(queue + place, 64);
        if (text.has_value()) {
            return !text->empty() && text->front() != '0';
        }
    }
    return false;
}

} // namespace

Result<ImageFacts> inspect_image(const sys::Fd& image, const std::string& name) {
    const int flags = ::fcntl(image.raw(), F_GETFL);
    struct stat info{};
    if (flags < 0 || ::fstat(image.raw(), &info) != 0) {
        return Error::from_errno(errno, quoted(name) + " cannot be examined");
    }
    ImageFacts facts;
    BlockGeometry& geometry = facts.geometry;
    geometry.read_only = (flags & O_ACCMODE) == O_RDONLY;
    facts.direct = (flags & O_DIRECT) != 0;
    geometry.bytes = static_cast<std::uint64_t>(info.st_size);
    if (S_ISBLK(info.st_mode)) {
        GODWIT_TRY(read_block_device(image, facts).with_context(quoted(name)));
    } else if (!S_ISREG(info.st_mode)) {
        return Error(ErrorCode::invalid_argument, quoted(name) + " is no disk");
    }
    if (facts.direct) {
        GODWIT_TRY(read_direct_alignment(image, facts).with_context(quoted(name)));
        geometry.logical_block_bytes =
            std::max(geometry.logical_block_bytes, facts.transfer_alignment_bytes);
    }
    geometry.physical_block_bytes =
        std::max(geometry.physical_block_bytes, geometry.logical_block_bytes);
    if (geometry.bytes == 0 || geometry.bytes % geometry.logical_block_bytes != 0) {
        return Error(ErrorCode::invalid_argument,
                     quoted(name) + " has " + std::to_string(geometry.bytes) +
                         " bytes, not a positive multiple of " +
                         std::to_string(geometry.logical_block_bytes) +
                         ": set its size with 'truncate -s'");
    }
    geometry.can_discard = !geometry.read_only && (!facts.block_device || device_discards(image));
    geometry.can_write_zeroes = !geometry.read_only;
    return facts;
}

} // namespace godwit::block
