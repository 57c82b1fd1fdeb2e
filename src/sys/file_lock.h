#pragma once

/// An exclusive lock on a file (flock(2)), held until destroyed; the file stays. It vanishes with
/// its process, however that ends. Owner thread only.

#include "base/result.h"
#include "sys/fd.h"

#include <string>

namespace godwit::sys {

class FileLock {
  public:
    /// Creates the file if needed and locks it; busy if another process holds the lock.
    [[nodiscard]] static Result<FileLock> acquire(const std::string& path);
    /// The lock a program that became this one has left open; busy if it is somebody else's.
    [[nodiscard]] static Result<FileLock> inherit(Fd fd);
    /// To leave it open to a program this one becomes.
    [[nodiscard]] const Fd& fd() const noexcept { return fd_; }

  private:
    explicit FileLock(Fd fd) noexcept : fd_(std::move(fd)) {}
    Fd fd_;
};

} // namespace godwit::sys
