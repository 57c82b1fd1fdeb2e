#pragma once

/// Tells when names appear in, change in or vanish from a directory (inotify(7)). It says only that
/// something happened: look again afterwards. Owner thread only.

#include "base/result.h"
#include "sys/fd.h"

#include <string>

namespace godwit::sys {

class DirectoryWatch {
  public:
    /// not_found if the directory does not exist. Changes from now on are seen.
    [[nodiscard]] static Result<DirectoryWatch> create(const std::string& directory);
    /// Readable when something happened since the last drain().
    [[nodiscard]] const Fd& fd() const noexcept { return fd_; }
    /// Forgets what was reported; true if there was anything.
    bool drain() const noexcept;

  private:
    explicit DirectoryWatch(Fd fd) noexcept : fd_(std::move(fd)) {}
    Fd fd_;
};

} // namespace godwit::sys
