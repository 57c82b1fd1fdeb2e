#include "doors/vhost/server.h"

#include "base/log.h"
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

Result<std::unique_ptr<Server>> Server::adopt(sys::Listener listener,
                                              virtio::VirtioDevice& device) {
    sys::EventFd stopping = GODWIT_TRY(sys::EventFd::create());
    return std::unique_ptr<Server>(new Server(std::move(listener), std::move(stopping), device));
}

Status Server::run() {
    for (std::uint32_t failures = 0;;) {
        if (session_ != nullptr) {
            serve();
        }
        const Status ready = sys::wait_readable(listener_.fd(), stopping_.fd());
        if (!ready.has_value()) {
            stopping_.drain(); // A next run() is to last.
            return ready.error().code() == ErrorCode::cancelled ? ok() : ready;
        }
        Result<sys::Fd> socket = listener_.accept();
        if (socket.has_value()) {
            failures = 0;
            log::info("front_end_came", {{"socket", listener_.path()}});
            channel_ = std::make_unique<Channel>(std::move(*socket));
            session_ = std::make_unique<Session>(device_, *channel_);
        } else if (++failures == accept_failures_max) {
            return std::move(socket.error()).with_context(listener_.path());
        }
    }
}

/// Until the front end goes, or stop().
void Server::serve() {
    const Status ended = converse();
    if (ended.error().code() != ErrorCode::cancelled) {
        dismiss(ended.error());
    }
}

void Server::dismiss(const Error& reason) {
    session_.reset();
    channel_.reset();
    if (reason.code() == ErrorCode::peer_closed) {
        log::info("front_end_went", {{"socket", listener_.path()}});
        return;
    }
    log::warn("front_end_refused", {{"socket", listener_.path()}, {"reason", reason.to_string()}});
}

/// Ends with an error: there is no other end.
Status Server::converse() {
    for (;;) {
        Message message = GODWIT_TRY(channel_->receive(stopping_.fd()));
        GODWIT_TRY(session_->handle(std::move(message)));
        if (session_->torn()) {
            return Error(ErrorCode::corrupt, "the guest's memory became smaller while in use");
        }
    }
}

Result<std::optional<SavedConversation>> Server::save(sys::Moment deadline) {
    if (session_ == nullptr) {
        return std::optional<SavedConversation>();
    }
    if (channel_->in_message()) {
        return Error(ErrorCode::busy, "the front end has sent a message only in part");
    }
    SavedConversation saved;
    saved.session = GODWIT_TRY(session_->save(deadline));
    saved.socket = GODWIT_TRY(channel_->socket().duplicate());
    return std::optional(std::move(saved));
}

Status Server::restore(SavedConversation saved) {
    channel_ = std::make_unique<Channel>(std::move(saved.socket));
    session_ = GODWIT_TRY(Session::restore(device_, *channel_, std::move(saved.session)));
    return ok();
}

void Server::resume() {
    const Status resumed = session_ == nullptr ? ok() : session_->resume();
    if (!resumed.has_value()) {
        dismiss(resumed.error());
    }
}

} // namespace godwit::doors::vhost
