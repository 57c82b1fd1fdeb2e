#pragma once

/// Where disks are moved to when many are: one or several directories, the room in them, and the
/// devices below. Looks at the file system once, when it is opened, and then keeps its own account.
/// Control thread only.

#include "base/result.h"

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace godwit::control {

inline constexpr std::size_t pool_directories_max = 16;

/// The whole device below a file or, if it is one, a block device: "8:0", also of a partition.
[[nodiscard]] Result<std::string> device_of(const std::string& path);

class DiskPool {
  public:
    /// Absolute paths of directories that are there and can be written to.
    [[nodiscard]] static Result<DiskPool> open(const std::vector<std::string>& directories);

    /// Whether a file lies right in one of the directories.
    [[nodiscard]] bool holds(const std::string& path) const;

    struct Place {
        std::string path; ///< "DIR/MACHINE-DISK.raw", or with a number if there is one already.
        std::string device;
    };
    /// In the directory with the most room left, which is taken. resource_exhausted if there is not
    /// so much anywhere.
    [[nodiscard]] Result<Place>
    take(const std::string& machine, const std::string& disk, std::uint64_t bytes);
    /// What all disks asked for, and what there was.
    [[nodiscard]] std::uint64_t wanted_bytes() const noexcept { return wanted_bytes_; }
    [[nodiscard]] std::uint64_t free_bytes() const noexcept { return free_bytes_; }

  private:
    struct Directory {
        std::string path; ///< Without links.
        std::string device;
        std::uint64_t file_system = 0;
    };
    [[nodiscard]] Result<std::string> free_name(const Directory& directory,
                                                const std::string& stem);

    std::vector<Directory> directories_;
    std::map<std::uint64_t, std::uint64_t> room_; ///< Bytes left by file system.
    std::set<std::string> taken_;
    std::uint64_t wanted_bytes_ = 0;
    std::uint64_t free_bytes_ = 0;
};

} // namespace godwit::control
