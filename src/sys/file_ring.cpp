#include "sys/file_ring.h"

#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/syscall.h>

#include <liburing.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

namespace godwit::sys {

namespace {
/// The one file's place in the ring's table of registered files.
constexpr int file_index = 0;
} // namespace

Result<std::unique_ptr<FileRing>> FileRing::create(const Fd& file, std::uint32_t entries) {
    if (entries == 0 || entries > file_ring_entries_max) {
        return Error(ErrorCode::invalid_argument,
                     "an io_uring of " + std::to_string(entries) + " entries");
    }
    // Deferred task work: completions are made when we ask for them, not by interrupting this
    // thread, which would cost an epoll_wait each (io_uring_setup(2), Linux 6.1). It needs a single
    // issuer; the ring starts disabled so that this is the first thread that submits. Task-run
    // flag: whether there is such work can be seen without a system call. Submit-all: one refused
    // entry does not hold the rest of a batch back.
    constexpr unsigned flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                               IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_R_DISABLED |
                               IORING_SETUP_SUBMIT_ALL;
    EventFd event = GODWIT_TRY(EventFd::create());
    auto ring = std::make_unique<io_uring>();
    const int made = ::io_uring_queue_init(entries, ring.get(), flags);
    if (made == -EINVAL) {
        return Error(ErrorCode::unsupported,
                     "this kernel's io_uring is too old: Godwit needs Linux 6.1 or newer");
    }
    if (made == -EPERM || made == -ENOSYS) {
        return Error::from_errno(-made,
                                 "io_uring is switched off here (sysctl kernel.io_uring_disabled, "
                                 "or a seccomp filter)");
    }
    if (made < 0) {
        return Error::from_errno(-made, "create an io_uring");
    }
    std::unique_ptr<FileRing> result(new FileRing(std::move(ring), std::move(event)));
    const int raw = file.raw();
    const int registered = ::io_uring_register_files(result->ring_.get(), &raw, 1);
    if (registered < 0) {
        return Error::from_errno(-registered, "register a file with an io_uring");
    }
    // Polling the ring itself is no use: since Linux 6.3 deferred work does not wake its pollers.
    const int watched = ::io_uring_register_eventfd(result->ring_.get(), result->event_.fd().raw());
    if (watched < 0) {
        return Error::from_errno(-watched, "register an eventfd with an io_uring");
    }
    return result;
}

FileRing::FileRing(std::unique_ptr<io_uring> ring, EventFd event)
    : ring_(std::move(ring)), event_(std::move(event)) {}

FileRing::~FileRing() {
    // The kernel tears a ring down some time after its descriptor is closed. Unregistering first
    // gives the file, and the lock on it, back now.
    ::io_uring_unregister_files(ring_.get());
    ::io_uring_queue_exit(ring_.get());
}

io_uring_sqe& FileRing::next_entry(std::uint64_t token) {
    io_uring_sqe* entry = ::io_uring_get_sqe(ring_.get());
    GODWIT_ASSERT(entry != nullptr); // The caller keeps to the number of entries.
    entry->user_data = token;
    return *entry;
}

namespace {

/// The prep functions of liburing clear user_data, hence the token last.
void finish_entry(io_uring_sqe& entry, std::uint64_t token) {
    entry.flags |= IOSQE_FIXED_FILE;
    ::io_uring_sqe_set_data64(&entry, token);
}

} // namespace

void FileRing::read(std::uint64_t token, std::span<const iovec> into, std::uint64_t offset) {
    io_uring_sqe& entry = next_entry(token);
    if (into.size() == 1) {
        ::io_uring_prep_read(
            &entry, file_index, into[0].iov_base, static_cast<unsigned>(into[0].iov_len), offset);
    } else {
        ::io_uring_prep_readv(
            &entry, file_index, into.data(), static_cast<unsigned>(into.size()), offset);
    }
    finish_entry(entry, token);
}

void FileRing::write(std::uint64_t token,
                     std::span<const iovec> from,
                     std::uint64_t offset,
                     WriteMode mode) {
    io_uring_sqe& entry = next_entry(token);
    if (from.size() == 1) {
        ::io_uring_prep_write(
            &entry, file_index, from[0].iov_base, static_cast<unsigned>(from[0].iov_len), offset);
    } else {
        ::io_uring_prep_writev(
            &entry, file_index, from.data(), static_cast<unsigned>(from.size()), offset);
    }
    entry.rw_flags = mode == WriteMode::durable ? RWF_DSYNC : 0;
    finish_entry(entry, token);
}

void FileRing::flush(std::uint64_t token) {
    io_uring_sqe& entry = next_entry(token);
    ::io_uring_prep_fsync(&entry, file_index, IORING_FSYNC_DATASYNC);
    finish_entry(entry, token);
}

void FileRing::change_space(std::uint64_t token, SpaceChange change, FileRange range) {
    io_uring_sqe& entry = next_entry(token);
    const int mode =
        change == SpaceChange::punch_hole ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    ::io_uring_prep_fallocate(&entry,
                              file_index,
                              mode | FALLOC_FL_KEEP_SIZE,
                              static_cast<off_t>(range.offset),
                              static_cast<off_t>(range.bytes));
    finish_entry(entry, token);
}

void FileRing::nothing(std::uint64_t token) {
    io_uring_sqe& entry = next_entry(token);
    ::io_uring_prep_nop(&entry);
    ::io_uring_sqe_set_data64(&entry, token);
}

std::uint32_t FileRing::unsubmitted() const noexcept {
    return ::io_uring_sq_ready(ring_.get());
}

Status FileRing::ensure_enabled() {
    if (enabled_) {
        return ok();
    }
    // liburing 2.3 declares io_uring_enable_rings() and does not export it.
    if (::syscall(
            __NR_io_uring_register, ring_->ring_fd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0) !=
        0) {
        return Error::from_errno(errno, "enable an io_uring");
    }
    enabled_ = true;
    return ok();
}

namespace {

Status status_of_enter(int result) {
    // Interrupted: what was not taken is still queued, and the caller comes back for it.
    if (result < 0 && result != -EINTR) {
        return Error::from_errno(-result, "submit to an io_uring");
    }
    return ok();
}

} // namespace

Status FileRing::submit() {
    GODWIT_TRY(ensure_enabled());
    return status_of_enter(::io_uring_submit(ring_.get()));
}

Status FileRing::submit_and_wait() {
    GODWIT_TRY(ensure_enabled());
    return status_of_enter(::io_uring_submit_and_wait(ring_.get(), 1));
}

bool FileRing::has_completions() const noexcept {
    return ::io_uring_cq_ready(ring_.get()) != 0 ||
           (__atomic_load_n(ring_->sq.kflags, __ATOMIC_ACQUIRE) & IORING_SQ_TASKRUN) != 0;
}

std::size_t FileRing::reap(std::span<Completion> out) {
    if (::io_uring_cq_ready(ring_.get()) == 0 && has_completions()) {
        // Runs the deferred work that turns finished operations into completions.
        ::io_uring_get_events(ring_.get());
    }
    unsigned head = 0;
    std::size_t count = 0;
    const io_uring_cqe* entry = nullptr;
    io_uring_for_each_cqe(ring_.get(), head, entry) {
        if (count == out.size()) {
            break;
        }
        out[count++] = {.token = entry->user_data, .result = entry->res};
    }
    ::io_uring_cq_advance(ring_.get(), static_cast<unsigned>(count));
    return count;
}

void FileRing::disarm() noexcept {
    ::io_uring_cq_eventfd_toggle(ring_.get(), false);
}

bool FileRing::arm() noexcept {
    ::io_uring_cq_eventfd_toggle(ring_.get(), true);
    // The kernel publishes work and then reads the flag; we write the flag and then look for work.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return !has_completions();
}

} // namespace godwit::sys
