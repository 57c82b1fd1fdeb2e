#include "sys/directory_watch.h"

#include <sys/inotify.h>

#include <unistd.h>

#include <array>
#include <cerrno>

namespace godwit::sys {

Result<DirectoryWatch> DirectoryWatch::create(const std::string& directory) {
    Fd fd(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    if (!fd.valid()) {
        return Error::from_errno(errno, "create an inotify instance");
    }
    constexpr std::uint32_t mask = IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE |
                                   IN_DELETE_SELF | IN_MOVE_SELF | IN_ATTRIB | IN_ONLYDIR;
    if (::inotify_add_watch(fd.raw(), directory.c_str(), mask) < 0) {
        return Error::from_errno(errno, "watch the directory '" + directory + "'");
    }
    return DirectoryWatch(std::move(fd));
}

bool DirectoryWatch::drain() const noexcept {
    std::array<char, 4096> events{};
    bool any = false;
    while (::read(fd_.raw(), events.data(), events.size()) > 0) {
        any = true;
    }
    return any;
}

} // namespace godwit::sys
