#include "sys/run_path.h"

#include <sys/stat.h>

#include <unistd.h>

#include <cerrno>
#include <cstdlib>

namespace godwit::sys {

namespace {

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

} // namespace godwit::sys
