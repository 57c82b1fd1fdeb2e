#include "sys/run_path.h"

#include <sys/stat.h>

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

namespace godwit::sys {

namespace {

constexpr std::size_t export_name_bytes_max = 48;

std::string environment(const char* name) {
    // NOLINTNEXTLINE(concurrency-mt-unsafe): nobody writes the environment.
    const char* const value = std::getenv(name);
    return value == nullptr ? std::string() : std::string(value);
}

} // namespace

std::string default_run_path() {
    if (std::string chosen = environment("GODWIT_RUN_DIR"); !chosen.empty()) {
        return chosen;
    }
    if (::geteuid() == 0) {
        return "/run/godwit";
    }
    if (const std::string runtime = environment("XDG_RUNTIME_DIR"); !runtime.empty()) {
        return runtime + "/godwit";
    }
    return "/tmp/godwit-" + std::to_string(::geteuid());
}

Status prepare_private_directory(const std::string& path) {
    if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
        return Error::from_errno(errno, "create the directory '" + path + "'");
    }
    struct stat info{};
    if (::lstat(path.c_str(), &info) != 0) {
        return Error::from_errno(errno, "look at the directory '" + path + "'");
    }
    if (!S_ISDIR(info.st_mode)) {
        return Error(ErrorCode::invalid_argument, "'" + path + "' is not a directory");
    }
    if (info.st_uid != ::geteuid() || (info.st_mode & 0077) != 0) {
        return Error(ErrorCode::permission_denied,
                     "'" + path + "' must belong to you alone (mode 0700)");
    }
    if (::access(path.c_str(), W_OK | X_OK) != 0) {
        return Error::from_errno(errno, "write to the directory '" + path + "'");
    }
    return ok();
}

Status check_export_name(std::string_view name) {
    const auto allowed = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '.' || c == '_' || c == '-';
    };
    if (name.empty() || name.size() > export_name_bytes_max || name[0] == '.' ||
        !std::ranges::all_of(name, allowed)) {
        return Error(ErrorCode::invalid_argument,
                     "the export name '" + std::string(name.substr(0, 80)) +
                         "' must be 1 to 48 letters, digits, '.', '_' and '-'");
    }
    return ok();
}

std::string exports_folder(const std::string& run_directory) {
    return run_directory + "/exports";
}

std::string export_socket(const std::string& run_directory, std::string_view name) {
    return exports_folder(run_directory) + "/" + std::string(name) + ".sock";
}

} // namespace godwit::sys
