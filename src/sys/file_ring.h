#pragma once

/// An io_uring(7) bound to one file: reads, writes, flushes and space changes that complete later.
///
/// Not a queue of its own: the caller keeps at most `entries` operations outstanding, which the
/// ring is sized for. Buffers and segment arrays stay untouched until their completion is reaped.
/// Thread rule: any one thread; it becomes the ring's thread with its first submit(), as the kernel
/// then delivers completions to it alone (IORING_SETUP_SINGLE_ISSUER). The file stays open, and its
/// locks held, until the ring is destroyed. Needs Linux 6.1.

#include "base/result.h"
#include "sys/fd.h"

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <span>

// liburing's own names.
struct io_uring;     // NOLINT(readability-identifier-naming)
struct io_uring_sqe; // NOLINT(readability-identifier-naming)

namespace godwit::sys {

inline constexpr std::uint32_t file_ring_entries_max = 4096;

/// What became of one operation: bytes moved, or a negated errno.
struct Completion {
    std::uint64_t token = 0;
    std::int32_t result = 0;
};

enum class WriteMode : std::uint8_t {
    buffered, ///< Durable after the next flush.
    durable,  ///< Durable when it completes (RWF_DSYNC).
};

/// How a range of a file changes its space; its size always stays.
enum class SpaceChange : std::uint8_t {
    punch_hole, ///< Deallocated; reads as zeros.
    zero_range, ///< Reads as zeros, stays allocated.
};

struct FileRange {
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
};

class FileRing {
  public:
    [[nodiscard]] static Result<std::unique_ptr<FileRing>> create(const Fd& file,
                                                                  std::uint32_t entries);
    FileRing(const FileRing&) = delete;
    FileRing& operator=(const FileRing&) = delete;
    /// Nothing may be outstanding.
    ~FileRing();

    // Each queues one operation; nothing reaches the kernel before submit().
    void read(std::uint64_t token, std::span<const iovec> into, std::uint64_t offset);
    void
    write(std::uint64_t token, std::span<const iovec> from, std::uint64_t offset, WriteMode mode);
    /// Makes every write completed before it durable (fdatasync).
    void flush(std::uint64_t token);
    void change_space(std::uint64_t token, SpaceChange change, FileRange range);
    /// Completes with 0 and does nothing.
    void nothing(std::uint64_t token);

    /// Operations queued and not yet handed to the kernel.
    [[nodiscard]] std::uint32_t unsubmitted() const noexcept;
    /// Hands everything queued to the kernel. On an error what was not taken stays queued.
    [[nodiscard]] Status submit();
    /// submit(), then waits for at least one completion.
    [[nodiscard]] Status submit_and_wait();
    /// Fills `out` with completions that are there now; how many.
    [[nodiscard]] std::size_t reap(std::span<Completion> out);

    /// Signalled when completions come while armed. For EventLoop::watch with EPOLLIN | EPOLLET,
    /// so that it never needs draining. Armed from the start.
    [[nodiscard]] const EventFd& event() const noexcept { return event_; }
    /// Stops the signals, for while completions are being reaped.
    void disarm() noexcept;
    /// Starts the signals again. False if completions came meanwhile that have to be reaped first.
    [[nodiscard]] bool arm() noexcept;

  private:
    FileRing(std::unique_ptr<io_uring> ring, EventFd event);
    [[nodiscard]] bool has_completions() const noexcept;
    [[nodiscard]] io_uring_sqe& next_entry(std::uint64_t token);
    [[nodiscard]] Status ensure_enabled();

    std::unique_ptr<io_uring> ring_;
    EventFd event_;
    bool enabled_ = false;
};

} // namespace godwit::sys
