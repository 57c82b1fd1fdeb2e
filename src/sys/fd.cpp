#include "sys/fd.h"

#include <linux/memfd.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>

namespace godwit::sys {

void Fd::reset() noexcept {
    if (raw_ >= 0) {
        ::close(raw_);
        raw_ = -1;
    }
}

Result<Fd> Fd::duplicate() const {
    const int copy = ::fcntl(raw_, F_DUPFD_CLOEXEC, 3);
    if (copy < 0) {
        return Error::from_errno(errno, "duplicate a descriptor");
    }
    return Fd(copy);
}

Result<Fd> open(const std::string& path, int flags, unsigned mode) {
    const int raw = ::open(path.c_str(), flags | O_CLOEXEC, mode);
    if (raw < 0) {
        return Error::from_errno(errno, "open '" + path + "'");
    }
    return Fd(raw);
}

Result<Fd> create_memfd(const std::string& name, std::uint64_t bytes, HugePages huge) {
    unsigned flags = MFD_CLOEXEC;
    if (huge == HugePages::hugetlb_2m) {
        flags |= MFD_HUGETLB | MFD_HUGE_2MB;
    } else {
        flags |= MFD_ALLOW_SEALING;
    }
    Fd fd(::memfd_create(name.c_str(), flags));
    if (!fd.valid()) {
        return Error::from_errno(errno, "create the memory file '" + name + "'");
    }
    if (::ftruncate(fd.raw(), static_cast<off_t>(bytes)) != 0) {
        return Error::from_errno(
            errno, "size the memory file '" + name + "' to " + std::to_string(bytes) + " bytes");
    }
    return fd;
}

namespace {

/// Runs `step(done)` until it has moved `total` bytes.
template <typename Step>
Status move_all(std::size_t total, const char* what, Step step) {
    std::size_t done = 0;
    while (done < total) {
        const ssize_t n = step(done);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return Error::from_errno(errno, what);
        }
        if (n == 0) {
            return Error(ErrorCode::peer_closed, std::string(what) + ": end of file");
        }
        done += static_cast<std::size_t>(n);
    }
    return ok();
}

} // namespace

Result<Fd> reopen_read_only(const Fd& fd) {
    return open("/proc/self/fd/" + std::to_string(fd.raw()), O_RDONLY);
}

Status read_exact(const Fd& fd, std::span<std::byte> out) {
    return move_all(out.size(), "read", [&](std::size_t done) {
        return ::read(fd.raw(), out.data() + done, out.size() - done);
    });
}

Status write_all(const Fd& fd, std::span<const std::byte> data) {
    return move_all(data.size(), "write", [&](std::size_t done) {
        return ::write(fd.raw(), data.data() + done, data.size() - done);
    });
}

Status pread_exact(const Fd& fd, std::span<std::byte> out, std::uint64_t offset) {
    return move_all(out.size(), "read at an offset", [&](std::size_t done) {
        return ::pread(
            fd.raw(), out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    });
}

Status pwrite_all(const Fd& fd, std::span<const std::byte> data, std::uint64_t offset) {
    return move_all(data.size(), "write at an offset", [&](std::size_t done) {
        return ::pwrite(
            fd.raw(), data.data() + done, data.size() - done, static_cast<off_t>(offset + done));
    });
}

Result<std::string> read_file(const std::string& path, std::uint64_t limit_bytes) {
    const Fd fd = GODWIT_TRY(open(path, O_RDONLY));
    std::string text;
    char chunk[4096];
    for (;;) {
        const ssize_t n = ::read(fd.raw(), chunk, sizeof(chunk));
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return Error::from_errno(errno, "read '" + path + "'");
        }
        if (n == 0) {
            return text;
        }
        if (text.size() + static_cast<std::size_t>(n) > limit_bytes) {
            return Error(ErrorCode::invalid_argument,
                         "'" + path + "' is larger than " + std::to_string(limit_bytes) + " bytes");
        }
        text.append(chunk, static_cast<std::size_t>(n));
    }
}

Status write_file_atomically(const std::string& path, std::string_view text) {
    const std::string temporary = path + ".new";
    const Fd fd = GODWIT_TRY(open(temporary, O_WRONLY | O_CREAT | O_TRUNC));
    GODWIT_TRY(write_all(fd, std::as_bytes(std::span(text))));
    if (::fsync(fd.raw()) != 0 || ::rename(temporary.c_str(), path.c_str()) != 0) {
        const int os_errno = errno;
        ::unlink(temporary.c_str());
        return Error::from_errno(os_errno, "write '" + path + "'");
    }
    return ok();
}

Status sync_directory_of(const std::string& path) {
    const std::size_t slash = path.rfind('/');
    const std::string directory = slash == std::string::npos ? "."
                                  : slash == 0               ? "/"
                                                             : path.substr(0, slash);
    const Fd fd = GODWIT_TRY(open(directory, O_RDONLY | O_DIRECTORY));
    if (::fsync(fd.raw()) != 0) {
        return Error::from_errno(errno, "make '" + directory + "' durable");
    }
    return ok();
}

Status replace_file_durably(const std::string& path, std::string_view text) {
    constexpr std::uint64_t former_bytes_max = std::uint64_t{1} << 20U;
    const bool there = ::access(path.c_str(), F_OK) == 0;
    std::string former;
    if (there) {
        former = GODWIT_TRY(read_file(path, former_bytes_max));
    }
    GODWIT_TRY(write_file_atomically(path, text));
    Status durable = sync_directory_of(path);
    if (!durable.has_value()) {
        // The new text can be seen already, and the caller goes on as if it had not been written.
        const Status back = there                         ? write_file_atomically(path, former)
                            : ::unlink(path.c_str()) == 0 ? ok()
                                                          : Error::from_errno(errno, "remove it");
        if (!back.has_value()) {
            return std::move(durable.error())
                .with_context("and '" + path + "' could not be put back");
        }
    }
    return durable;
}

Result<std::uint64_t> file_size(const Fd& fd) {
    struct stat info{};
    if (::fstat(fd.raw(), &info) != 0) {
        return Error::from_errno(errno, "read the size of a file");
    }
    return static_cast<std::uint64_t>(info.st_size);
}

Status set_nonblocking(const Fd& fd) {
    const int flags = ::fcntl(fd.raw(), F_GETFL);
    if (flags < 0 || ::fcntl(fd.raw(), F_SETFL, flags | O_NONBLOCK) != 0) {
        return Error::from_errno(errno, "make a descriptor non-blocking");
    }
    return ok();
}

Result<EventFd> EventFd::create() {
    Fd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!fd.valid()) {
        return Error::from_errno(errno, "create an eventfd");
    }
    return EventFd(std::move(fd));
}

Result<EventFd> EventFd::adopt(Fd fd) {
    std::array<char, 64> target{};
    const std::string link = "/proc/self/fd/" + std::to_string(fd.raw());
    const ssize_t length = ::readlink(link.c_str(), target.data(), target.size());
    if (length < 0) {
        return Error::from_errno(errno, "look at a descriptor");
    }
    if (std::string_view(target.data(), static_cast<std::size_t>(length)) !=
        "anon_inode:[eventfd]") {
        return Error(ErrorCode::invalid_argument, "a descriptor is no eventfd");
    }
    GODWIT_TRY(set_nonblocking(fd));
    return EventFd(std::move(fd));
}

void EventFd::signal() const noexcept {
    const std::uint64_t one = 1;
    // A full counter (EAGAIN) is already a signal.
    [[maybe_unused]] const ssize_t n = ::write(fd_.raw(), &one, sizeof(one));
}

bool EventFd::drain() const noexcept {
    std::uint64_t count = 0;
    return ::read(fd_.raw(), &count, sizeof(count)) == static_cast<ssize_t>(sizeof(count));
}

Result<EventFd> EventFd::duplicate() const {
    return EventFd(GODWIT_TRY(fd_.duplicate()));
}

} // namespace godwit::sys
