#include "doors/nbd/server.h"

#include "base/log.h"
#include "sys/tcp.h"

#include <sys/epoll.h>

#include <algorithm>
#include <bit>

namespace godwit::doors::nbd {

namespace {
/// How long a client that does not read its answers may hold up the end.
constexpr std::chrono::seconds stop_patience(5);
constexpr std::chrono::milliseconds for_ever(-1);
} // namespace

Result<std::unique_ptr<Server>>
Server::create(const std::string& address, ExportedDisk& disk, const std::string& name) {
    if (name.size() > name_bytes_max) {
        return Error(ErrorCode::invalid_argument, "an export's name of more than 4096 bytes");
    }
    std::unique_ptr<Server> made(new Server(disk, name));
    GODWIT_TRY(made->listen(address));
    GODWIT_TRY(made->begin());
    return made;
}

std::unique_ptr<Server> Server::adopt(Adopted adopted, ExportedDisk& disk) {
    std::unique_ptr<Server> made(new Server(disk, std::move(adopted.name)));
    made->uri_ = std::move(adopted.uri);
    if (adopted.address.find('/') != std::string::npos) {
        made->path_ = sys::Listener::adopt(std::move(adopted.listening), adopted.address);
    } else {
        made->tcp_ = std::move(adopted.listening);
    }
    return made;
}

void Server::restore(std::vector<SavedConnection> clients) {
    disk_.loop().run_and_wait([&] {
        for (SavedConnection& client : clients) {
            clients_.push_back(Connection::restore(std::move(client), disk_));
        }
    });
}

Status Server::begin() {
    if (path_.has_value()) {
        path_->find_path();
    }
    const auto start = [this]() -> Status {
        if (!listening_.active()) {
            listening_ = GODWIT_TRY(disk_.loop().watch(
                listening_socket(), EPOLLIN, [this](std::uint32_t) { accept(); }));
        }
        if (!before_wait_.active()) {
            before_wait_ = disk_.loop().before_wait([this](bool) {
                finish_pass();
                return for_ever;
            });
        }
        for (const auto& client : clients_) {
            if (!client->rouse().has_value()) {
                client->abandon();
            }
        }
        return ok();
    };
    Status started;
    disk_.loop().run_and_wait([&] { started = start(); });
    return started;
}

Result<std::vector<SavedConnection>> Server::freeze(sys::Moment deadline) {
    std::future<void> at_rest;
    disk_.loop().run_and_wait([&] {
        listening_.reset();
        at_rest = at_rest_.emplace().get_future();
        for (const auto& client : clients_) {
            client->hold();
        }
    });
    const bool done = at_rest.wait_until(deadline) == std::future_status::ready;
    std::vector<SavedConnection> saved;
    const auto save = [&]() -> Status {
        at_rest_.reset();
        if (!done) {
            return Error(ErrorCode::timeout, "requests of NBD clients do not come to an end");
        }
        for (const auto& client : clients_) {
            if (!client->over()) {
                saved.push_back(GODWIT_TRY(client->save()));
            }
        }
        return ok();
    };
    Status outcome;
    disk_.loop().run_and_wait([&] { outcome = save(); });
    GODWIT_TRY(std::move(outcome));
    return saved;
}

void Server::let_go() {
    if (path_.has_value()) {
        path_->abandon_path();
    }
    disk_.loop().run_and_wait([&] {
        for (const auto& client : clients_) {
            client->abandon();
        }
    });
}

Status Server::listen(const std::string& address) {
    if (address.find('/') != std::string::npos) {
        path_ = GODWIT_TRY(sys::Listener::create(address, sys::SocketKind::stream, 0660));
        uri_ = "nbd+unix:///" + name_ + "?socket=" + address;
        return ok();
    }
    const sys::TcpAddress where = GODWIT_TRY(sys::parse_tcp_address(address));
    tcp_ = GODWIT_TRY(sys::listen_tcp(where));
    const bool numbers = where.host.find(':') != std::string::npos;
    uri_ = "nbd://" + (numbers ? "[" + where.host + "]" : where.host) + ":" +
           std::to_string(GODWIT_TRY(sys::local_port(tcp_))) + "/" + name_;
    return ok();
}

Server::~Server() {
    stop();
}

void Server::stop() {
    if (!before_wait_.active()) {
        return; // Never started, or stopped before.
    }
    std::future<void> empty;
    disk_.loop().run_and_wait([&] {
        listening_.reset();
        stopped_.emplace();
        empty = stopped_->get_future();
        for (const auto& client : clients_) {
            client->stop_reading();
        }
    });
    if (empty.wait_for(stop_patience) != std::future_status::ready) {
        disk_.loop().run_and_wait([&] {
            for (const auto& client : clients_) {
                client->abandon();
            }
        });
        empty.wait();
    }
    disk_.loop().run_and_wait([&] { before_wait_.reset(); });
}

Export Server::description() const {
    // The disk as it is now: it may have grown since it was opened.
    const block::BlockGeometry& geometry = disk_.disk().geometry();
    namespace flag = transmission_flag;
    unsigned flags = flag::has_flags | flag::send_flush | flag::send_fua | flag::can_multi_conn;
    if (geometry.read_only) {
        flags |= flag::read_only;
    } else {
        flags |= geometry.can_discard ? flag::send_trim : 0U;
        flags |= geometry.can_write_zeroes ? flag::send_write_zeroes : 0U;
    }
    return {.name = name_,
            .bytes = geometry.bytes,
            .flags = static_cast<std::uint16_t>(flags),
            .block_bytes_min = geometry.logical_block_bytes};
}

void Server::accept() {
    const sys::Fd& socket = path_.has_value() ? path_->fd() : tcp_;
    Result<sys::Fd> client = sys::accept_stream(socket);
    if (!client.has_value()) {
        return; // It went again, or there is no descriptor for it now.
    }
    if (clients_.size() >= clients_max) {
        if (std::has_single_bit(++turned_away_)) {
            log::warn("client_turned_away", {{"at", uri_}, {"times", turned_away_}});
        }
        return;
    }
    auto connection = Connection::create(std::move(*client), disk_, description());
    if (!connection.has_value()) {
        log::warn("client_not_served", {{"reason", connection.error().to_string()}});
        return;
    }
    clients_.push_back(std::move(*connection));
}

void Server::finish_pass() {
    for (auto& client : clients_) {
        client->finish_pass();
        if (!client->over()) {
            continue;
        }
        if (!client->outcome().has_value()) {
            log::warn("client_refused",
                      {{"at", uri_}, {"reason", client->outcome().error().to_string()}});
        }
        client.reset();
    }
    std::erase(clients_, nullptr);
    // What was answered and not taken by a client is handed over with it.
    if (at_rest_.has_value() &&
        std::ranges::none_of(clients_, [](const auto& client) { return client->in_flight(); })) {
        at_rest_->set_value();
        at_rest_.reset();
    }
    if (clients_.empty() && stopped_.has_value()) {
        stopped_->set_value();
        stopped_.reset();
    }
}

} // namespace godwit::doors::nbd
