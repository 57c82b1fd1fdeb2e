#include "doors/vhost/server.h"

#include "base/log.h"
#include "doors/vhost/session.h"
#include "sys/fd_stream.h"

namespace godwit::doors::vhost {

namespace {
/// One after the other: then it is not the front ends that are at fault.
constexpr std::uint32_t accept_failures_max = 16;
} // namespace

Result<std::unique_ptr<Server>> Server::create(const std::string& path,
                                               virtio::VirtioDevice& device) {
    sys::EventFd stopping = GODWIT_TRY(sys::EventFd::create());
    sys::Listener listener = GODWIT_TRY(sys::Listener::create(path, sys::SocketKind::stream, 0660));
    return std::unique_ptr<Server>(new Server(std::move(listener), std::move(stopping), device));
}

Status Server::run() {
    for (std::uint32_t failures = 0;;) {
        const Status ready = sys::wait_readable(listener_.fd(), stopping_.fd());
        if (!ready.has_value()) {
            return ready.error().code() == ErrorCode::cancelled ? ok() : ready;
        }
        Result<sys::Fd> socket = listener_.accept();
        if (socket.has_value()) {
            failures = 0;
            serve(std::move(*socket));
        } else if (++failures == accept_failures_max) {
            return std::move(socket.error()).with_context(listener_.path());
        }
    }
}

void Server::serve(sys::Fd socket) {
    log::info("front_end_came", {{"socket", listener_.path()}});
    const Status ended = converse(std::move(socket));
    if (ended.has_value() || ended.error().code() == ErrorCode::peer_closed ||
        ended.error().code() == ErrorCode::cancelled) {
        log::info("front_end_went", {{"socket", listener_.path()}});
        return;
    }
    log::warn("front_end_refused",
              {{"socket", listener_.path()}, {"reason", ended.error().to_string()}});
}

Status Server::converse(sys::Fd socket) {
    const Channel channel(std::move(socket));
    Session session(device_, channel);
    for (;;) {
        Message message = GODWIT_TRY(channel.receive(stopping_.fd()));
        GODWIT_TRY(session.handle(std::move(message)));
        if (session.torn()) {
            return Error(ErrorCode::corrupt, "the guest's memory became smaller while in use");
        }
    }
}

} // namespace godwit::doors::vhost
