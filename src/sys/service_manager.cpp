#include "sys/service_manager.h"

#include "sys/fd.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <string>

namespace godwit::sys {

Status tell_service_manager(std::string_view lines) {
    // NOLINTNEXTLINE(concurrency-mt-unsafe): nobody writes the environment.
    const char* const named = std::getenv("NOTIFY_SOCKET");
    if (named == nullptr || *named == '\0') {
        return ok();
    }
    std::string path(named);
    sockaddr_un address{};
    if ((path[0] != '/' && path[0] != '@') || path.size() >= sizeof(address.sun_path)) {
        return Error(ErrorCode::unsupported, "NOTIFY_SOCKET is '" + path + "'");
    }
    if (path[0] == '@') {
        path[0] = '\0'; // Of the abstract namespace (unix(7)).
    }
    address.sun_family = AF_UNIX;
    std::ranges::copy(path, address.sun_path);
    const Fd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!socket.valid()) {
        return Error::from_errno(errno, "create a socket");
    }
    if (::sendto(socket.raw(),
                 lines.data(),
                 lines.size(),
                 MSG_NOSIGNAL | MSG_DONTWAIT,
                 reinterpret_cast<const sockaddr*>(&address),
                 static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size())) < 0) {
        return Error::from_errno(errno, "tell the service manager");
    }
    return ok();
}

} // namespace godwit::sys
