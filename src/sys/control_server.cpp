#include "sys/control_server.h"

#include "base/log.h"

#include <sys/epoll.h>

#include <unistd.h>

#include <algorithm>
#include <array>

namespace godwit::sys {

namespace {

std::string to_text(const nlohmann::json& message) {
    return message.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

} // namespace

void ControlServer::Reply::result(const nlohmann::json& value) const {
    answer({{"id", id_}, {"result", value}});
}

void ControlServer::Reply::result(const nlohmann::json& value, std::vector<Fd> passed) const {
    answer({{"id", id_}, {"result", value}},
           std::make_shared<const std::vector<Fd>>(std::move(passed)));
}

void ControlServer::Reply::error(const Error& error) const {
    answer({{"id", id_},
            {"error", {{"code", name_of(error.code())}, {"message", error.to_string()}}}});
}

void ControlServer::Reply::answer(nlohmann::json message,
                                  std::shared_ptr<const std::vector<Fd>> passed) const {
    server_->loop_.post(
        [server = server_, connection = connection_, text = to_text(message), passed] {
            server->send(connection, text, passed.get());
        });
}

Result<std::unique_ptr<ControlServer>>
ControlServer::create(EventLoop& loop, Listener listener, Handler handler) {
    std::unique_ptr<ControlServer> server(
        new ControlServer(loop, std::move(listener), std::move(handler)));
    GODWIT_TRY(server->begin_again());
    return server;
}

Status ControlServer::begin_again() {
    listen_watch_ = GODWIT_TRY(
        loop_.watch(listener_.fd(), EPOLLIN, [this](std::uint32_t) { accept_connection(); }));
    return ok();
}

void ControlServer::accept_connection() {
    Result<Fd> fd = listener_.accept();
    if (!fd.has_value()) {
        return;
    }
    MessageSocket socket(std::move(*fd));
    const auto peer = socket.peer();
    if (!peer.has_value() || (peer->uid != ::getuid() && peer->uid != 0)) {
        log::warn("control_connection_refused", {{"uid", peer.has_value() ? peer->uid : 0U}});
        return;
    }
    if (connections_.size() >= control_connections_max ||
        !set_nonblocking(socket.fd()).has_value()) {
        log::warn("control_connection_refused", {{"connections_max", control_connections_max}});
        return;
    }
    const std::uint64_t id = next_id_++;
    connections_.push_back({.id = id, .socket = std::move(socket), .watch = {}});
    auto watch = loop_.watch(
        connections_.back().socket.fd(), EPOLLIN, [this, id](std::uint32_t) { serve(id); });
    if (!watch.has_value()) {
        connections_.pop_back();
        return;
    }
    connections_.back().watch = std::move(*watch);
}

std::list<ControlServer::Connection>::iterator ControlServer::find(std::uint64_t id) {
    return std::find_if(
        connections_.begin(), connections_.end(), [id](const Connection& c) { return c.id == id; });
}

void ControlServer::serve(std::uint64_t id) {
    const auto connection = find(id);
    if (connection == connections_.end()) {
        return;
    }
    Result<Message> message = connection->socket.receive(std::chrono::milliseconds(0));
    if (!message.has_value()) {
        if (message.error().code() != ErrorCode::timeout) {
            connections_.erase(connection);
        }
        return;
    }
    handle(*connection, std::move(*message));
}

void ControlServer::handle(Connection& connection, Message message) {
    const auto json = message.bytes.size() <= control_request_bytes_max
                          ? nlohmann::json::parse(message.bytes, nullptr, false)
                          : nlohmann::json(nlohmann::json::value_t::discarded);
    if (!json.is_object() || !json.contains("method") || !json["method"].is_string()) {
        const Reply reply(*this, connection.id, nullptr);
        reply.error(Error(ErrorCode::invalid_argument,
                          "a request is a JSON object with \"id\", \"method\" and \"params\""));
        return;
    }
    const nlohmann::json params =
        json.contains("params") ? json["params"] : nlohmann::json::object();
    Reply reply(*this, connection.id, json.contains("id") ? json["id"] : nlohmann::json(nullptr));
    if (!params.is_object()) {
        reply.error(Error(ErrorCode::invalid_argument, "\"params\" must be a JSON object"));
        return;
    }
    handler_({.method = json["method"],
              .params = params,
              .fds = std::move(message.fds),
              .reply = std::move(reply)});
}

void ControlServer::subscribe(std::uint64_t connection) {
    const auto found = find(connection);
    if (found != connections_.end()) {
        found->subscribed = true;
    }
}

void ControlServer::broadcast(const nlohmann::json& event) {
    const std::string text = to_text(event);
    std::vector<std::uint64_t> listeners;
    for (const Connection& connection : connections_) {
        if (connection.subscribed) {
            listeners.push_back(connection.id);
        }
    }
    for (const std::uint64_t id : listeners) {
        send(id, text);
    }
}

void ControlServer::send(std::uint64_t id, const std::string& text, const std::vector<Fd>* passed) {
    const auto connection = find(id);
    if (connection == connections_.end()) {
        return;
    }
    // A peer that does not read fills its socket; it is dropped rather than waited for.
    std::vector<const Fd*> fds;
    if (passed != nullptr) {
        for (const Fd& fd : *passed) {
            fds.push_back(&fd);
        }
    }
    const Status sent = connection->socket.send(text, fds);
    if (!sent.has_value()) {
        log::warn("control_connection_dropped", {{"reason", sent.error().to_string()}});
        connections_.erase(connection);
    }
}

} // namespace godwit::sys
