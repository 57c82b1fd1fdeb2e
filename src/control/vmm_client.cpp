#include "control/vmm_client.h"

#include <sys/epoll.h>

#include <nlohmann/json.hpp>

#include <array>

namespace godwit::control {

struct VmmClient::Pending {
    std::string method;
    Reply<VmmAnswer> reply;
    sys::EventLoop::Handle timer;
};

VmmStatus vmm_status_of(const Json& result) {
    return {.role = text_member(result, "role"),
            .state = text_member(result, "state"),
            .build_id = text_member(result, "build_id"),
            .version = text_member(result, "version"),
            .epoch = number_member(result, "epoch"),
            .uptime_seconds = number_member(result, "uptime_s"),
            .confined = result.value("confined", Json()) == true,
            .reclaimable = result.value("reclaimable", Json()) != false};
}

VmmClient::VmmClient(sys::EventLoop& loop, sys::MessageSocket socket, Callbacks callbacks)
    : loop_(loop), socket_(std::move(socket)), callbacks_(std::move(callbacks)) {}

VmmClient::~VmmClient() = default;

Result<std::shared_ptr<VmmClient>>
VmmClient::connect(sys::EventLoop& loop, const std::string& path, Callbacks callbacks) {
    sys::MessageSocket socket = GODWIT_TRY(sys::MessageSocket::connect(path));
    GODWIT_TRY(sys::set_nonblocking(socket.fd()));
    const sys::PeerCredentials peer = GODWIT_TRY(socket.peer());
    std::shared_ptr<VmmClient> made(new VmmClient(loop, std::move(socket), std::move(callbacks)));
    made->peer_pid_ = peer.pid;
    VmmClient* const raw = made.get();
    made->watch_ = GODWIT_TRY(loop.watch(made->socket_.fd(), EPOLLIN, [raw](std::uint32_t) {
        const std::shared_ptr<VmmClient> keep = raw->shared_from_this();
        keep->receive_one();
    }));
    return made;
}

void VmmClient::fail_later(Reply<VmmAnswer> reply, Error error) {
    loop_.post([reply = std::move(reply), error = std::move(error)]() mutable {
        reply(std::move(error));
    });
}

void VmmClient::call(std::string_view method,
                     const Json& params,
                     std::chrono::milliseconds timeout,
                     Reply<Json> reply,
                     const sys::Fd* passed) {
    call_for_fds(method,
                 params,
                 timeout,
                 Reply<VmmAnswer>([reply = std::move(reply)](Result<VmmAnswer> answer) mutable {
                     reply(answer.has_value() ? Result<Json>(std::move(*answer->result))
                                              : Result<Json>(std::move(answer.error())));
                 }),
                 passed);
}

void VmmClient::call_for_fds(std::string_view method,
                             const Json& params,
                             std::chrono::milliseconds timeout,
                             Reply<VmmAnswer> reply,
                             const sys::Fd* passed) {
    if (closed_ || pending_.size() >= vmm_requests_max) {
        fail_later(std::move(reply),
                   closed_ ? Error(ErrorCode::peer_closed, "the connection to the VMM is gone")
                           : Error(ErrorCode::busy, "too many requests to this VMM under way"));
        return;
    }
    const std::uint64_t id = next_id_++;
    const Json request{{"id", id}, {"method", method}, {"params", params}};
    const std::array<const sys::Fd*, 1> fds{passed};
    Status sent = socket_.send(json_text(request), std::span(fds).first(passed == nullptr ? 0 : 1));
    if (!sent.has_value()) {
        fail_later(std::move(reply), std::move(sent.error()).with_context("ask the VMM"));
        return;
    }
    Result<sys::EventLoop::Handle> timer = loop_.schedule(timeout, {}, [this, id, timeout] {
        const auto found = pending_.find(id);
        Pending pending = std::move(found->second);
        pending_.erase(found);
        pending.reply(Error(ErrorCode::timeout,
                            "the VMM did not answer '" + pending.method + "' within " +
                                std::to_string(timeout.count()) + " ms"));
    });
    if (!timer.has_value()) {
        fail_later(std::move(reply), std::move(timer.error()));
        return;
    }
    pending_.emplace(id,
                     Pending{.method = std::string(method),
                             .reply = std::move(reply),
                             .timer = std::move(*timer)});
}

void VmmClient::drain() {
    const std::shared_ptr<VmmClient> keep = shared_from_this();
    constexpr int messages_max = 1024;
    for (int i = 0; i < messages_max && receive_one(); ++i) {
    }
}

bool VmmClient::receive_one() {
    if (closed_) {
        return false;
    }
    Result<sys::Message> message = socket_.receive(std::chrono::milliseconds(0));
    if (!message.has_value()) {
        const ErrorCode code = message.error().code();
        if (code != ErrorCode::timeout && code != ErrorCode::busy) {
            close(message.error());
        }
        return false;
    }
    handle(std::move(*message));
    return !closed_;
}

void VmmClient::handle(sys::Message packet) {
    const Result<Json> parsed = parse_json(packet.bytes);
    if (!parsed.has_value() || !parsed->is_object()) {
        close(Error(ErrorCode::corrupt, "the VMM sent something that is no message"));
        return;
    }
    const Json& message = *parsed;
    if (message.contains("event")) {
        // A copy, because the callback may destroy this client.
        const auto callback = callbacks_.event;
        callback(message);
        return;
    }
    const auto found = pending_.find(number_member(message, "id"));
    if (found == pending_.end()) {
        return; // The answer to a request that was given up.
    }
    Pending pending = std::move(found->second);
    pending_.erase(found);
    pending.timer.reset();
    if (message.contains("error")) {
        pending.reply(error_of(message["error"]));
    } else if (message.contains("result")) {
        pending.reply(VmmAnswer{.result = std::make_shared<Json>(message["result"]),
                                .fds = std::move(packet.fds)});
    } else {
        pending.reply(Error(ErrorCode::corrupt, "the VMM's answer has no result"));
    }
}

void VmmClient::close(const Error& reason) {
    closed_ = true;
    watch_.reset();
    std::map<std::uint64_t, Pending> pending;
    pending.swap(pending_);
    for (auto& [id, call] : pending) {
        call.timer.reset();
        call.reply(Error(reason));
    }
    const auto callback = callbacks_.closed;
    callback(reason);
}

} // namespace godwit::control
