#include "control/disk_pool.h"

#include "sys/fd.h"

#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <optional>

namespace godwit::control {

namespace {

/// Names tried when images of earlier moves are still there.
constexpr int names_max = 100;

std::string number_of(dev_t device) {
    return std::to_string(major(device)) + ":" + std::to_string(minor(device));
}

Result<std::string> without_links(const std::string& path) {
    std::error_code error;
    const std::filesystem::path real = std::filesystem::weakly_canonical(path, error);
    if (error) {
        return Error(ErrorCode::io, "'" + path + "' cannot be looked at: " + error.message());
    }
    return real.string();
}

} // namespace

Result<std::string> device_of(const std::string& path) {
    struct stat info{};
    if (::stat(path.c_str(), &info) != 0) {
        return Error::from_errno(errno, "'" + path + "' cannot be looked at");
    }
    std::string device = number_of(S_ISBLK(info.st_mode) ? info.st_rdev : info.st_dev);
    const std::string place = "/sys/dev/block/" + device;
    if (!sys::read_file(place + "/partition", 16).has_value()) {
        return device;
    }
    const Result<std::string> whole = sys::read_file(place + "/../dev", 32);
    return whole.has_value() ? whole->substr(0, whole->find('\n')) : device;
}

Result<DiskPool> DiskPool::open(const std::vector<std::string>& directories) {
    if (directories.empty() || directories.size() > pool_directories_max) {
        return Error(ErrorCode::invalid_argument,
                     "request: /to: must be 1 to " + std::to_string(pool_directories_max) +
                         " directories");
    }
    DiskPool pool;
    for (const std::string& named : directories) {
        if (!std::filesystem::path(named).is_absolute()) {
            return Error(ErrorCode::invalid_argument,
                         "request: /to is '" + named + "': must be an absolute path");
        }
        Directory made{.path = GODWIT_TRY(without_links(named)), .device = {}};
        struct stat info{};
        struct statvfs system{};
        if (::stat(made.path.c_str(), &info) != 0 || ::statvfs(made.path.c_str(), &system) != 0) {
            return Error::from_errno(errno, "the directory '" + named + "' cannot be used");
        }
        if (!S_ISDIR(info.st_mode)) {
            return Error(ErrorCode::invalid_argument, "'" + named + "' is no directory");
        }
        if (::access(made.path.c_str(), W_OK | X_OK) != 0) {
            return Error::from_errno(errno, "nothing can be made in '" + named + "'");
        }
        made.device = GODWIT_TRY(device_of(made.path));
        made.file_system = info.st_dev;
        const std::uint64_t room = std::uint64_t{system.f_bavail} * system.f_frsize;
        if (pool.room_.emplace(made.file_system, room).second) {
            pool.free_bytes_ += room;
        }
        if (std::ranges::find(pool.directories_, made.path, &Directory::path) ==
            pool.directories_.end()) {
            pool.directories_.push_back(std::move(made));
        }
    }
    return pool;
}

bool DiskPool::holds(const std::string& path) const {
    const Result<std::string> real = without_links(path);
    if (!real.has_value()) {
        return false;
    }
    const std::string parent = std::filesystem::path(*real).parent_path().string();
    return std::ranges::find(directories_, parent, &Directory::path) != directories_.end();
}

Result<std::string> DiskPool::free_name(const Directory& directory, const std::string& stem) {
    for (int number = 1; number <= names_max; ++number) {
        std::string path = directory.path + "/" + stem +
                           (number == 1 ? "" : "-" + std::to_string(number)) + ".raw";
        struct stat info{};
        if (::lstat(path.c_str(), &info) == 0) {
            continue;
        }
        if (errno != ENOENT) {
            return Error::from_errno(errno, "'" + path + "' cannot be looked at");
        }
        if (taken_.insert(path).second) {
            return path;
        }
    }
    return Error(ErrorCode::already_exists,
                 "'" + directory.path + "' has " + std::to_string(names_max) + " images '" + stem +
                     "-..' already: remove some");
}

Result<DiskPool::Place>
DiskPool::take(const std::string& machine, const std::string& disk, std::uint64_t bytes) {
    wanted_bytes_ += bytes;
    const auto most =
        std::ranges::max_element(directories_, {}, [this](const Directory& directory) {
            return room_[directory.file_system];
        });
    if (room_[most->file_system] < bytes) {
        return Error(ErrorCode::resource_exhausted,
                     "it needs " + std::to_string(bytes) +
                         " bytes, and there is no directory with so much room left");
    }
    std::string path = GODWIT_TRY(free_name(*most, machine + "-" + disk));
    room_[most->file_system] -= bytes;
    return Place{.path = std::move(path), .device = most->device};
}

} // namespace godwit::control
