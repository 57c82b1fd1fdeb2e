#include "vmm/console_port.h"

#include "base/log.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace godwit::vmm {

namespace {

constexpr std::chrono::milliseconds gather_time{2};
constexpr std::chrono::milliseconds last_words_time{1000};

} // namespace

Status ConsolePort::listen(const std::string& path) {
    listener_ = GODWIT_TRY(sys::Listener::create(path, sys::SocketKind::stream));
    return watch_listener();
}

Status ConsolePort::watch_listener() {
    listen_watch_ = GODWIT_TRY(
        loop_.watch(listener_->fd(), EPOLLIN, [this](std::uint32_t) { accept_clients(); }));
    return ok();
}

void ConsolePort::accept_clients() {
    if (frozen_) {
        return; // It waits in the listener's queue.
    }
    Result<sys::Fd> fd = listener_->accept();
    if (!fd.has_value()) {
        return;
    }
    if (clients_.size() >= console_clients_max) {
        log::warn("console_client_refused", {{"clients_max", console_clients_max}});
        return;
    }
    if (!sys::set_nonblocking(*fd).has_value()) {
        return;
    }
    add_client(std::move(*fd), std::max(read_offset_, backlog_offset_), {});
}

void ConsolePort::add_client(sys::Fd fd, std::uint64_t offset, std::string pending_input) {
    clients_.push_back({.fd = std::move(fd),
                        .watch = {},
                        .offset = offset,
                        .pending_input = std::move(pending_input)});
    const auto client = std::prev(clients_.end());
    client->events = EPOLLIN;
    auto watch = loop_.watch(client->fd, client->events, [this, client](std::uint32_t events) {
        serve(client, events);
    });
    if (!watch.has_value()) {
        clients_.erase(client);
        return;
    }
    client->watch = std::move(*watch);
    if (!flush(*client)) {
        clients_.erase(client);
    }
}

void ConsolePort::serve(Clients::iterator client, std::uint32_t events) {
    if (frozen_) {
        return;
    }
    bool alive = true;
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
        alive = read_input(*client);
    }
    if (alive && (events & EPOLLOUT) != 0) {
        alive = flush(*client);
    }
    if (!alive) {
        clients_.erase(client);
    }
}

/// False if the client is gone.
bool ConsolePort::read_input(Client& client) {
    std::array<std::byte, 4096> chunk{};
    const ssize_t n = ::recv(client.fd.raw(), chunk.data(), chunk.size(), MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        return false;
    }
    if (n < 0) {
        return true;
    }
    const std::span<const std::byte> bytes(chunk.data(), static_cast<std::size_t>(n));
    const std::size_t taken = input_(bytes);
    const auto rest = bytes.subspan(taken);
    client.pending_input.append(reinterpret_cast<const char*>(rest.data()), rest.size());
    update_events(client);
    return true;
}

void ConsolePort::input_ready() {
    if (frozen_) {
        return;
    }
    for (Client& client : clients_) {
        if (client.pending_input.empty()) {
            continue;
        }
        client.pending_input.erase(0, input_(std::as_bytes(std::span(client.pending_input))));
        update_events(client);
    }
}

/// Reads only while there is room for input, waits for room in the socket only while output is
/// left.
void ConsolePort::update_events(Client& client) {
    const bool output_left = client.offset < backlog_offset_ + backlog_.size();
    const std::uint32_t wanted =
        frozen_ ? 0U
                : (client.pending_input.empty() ? std::uint32_t{EPOLLIN} : 0U) |
                      (output_left ? std::uint32_t{EPOLLOUT} : 0U);
    if (wanted != client.events && loop_.rearm(client.watch, wanted).has_value()) {
        client.events = wanted;
    }
}

void ConsolePort::write(std::span<const std::byte> bytes) {
    const std::lock_guard lock(mutex_);
    fresh_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (fresh_.size() > backlog_bytes_max) {
        // Nobody fetches it: the guest must not fill our memory.
        fresh_dropped_ += fresh_.size() - backlog_bytes_max;
        fresh_.erase(0, fresh_.size() - backlog_bytes_max);
    }
    if (!flush_posted_) {
        flush_posted_ = true;
        // The task may come to run after this port is gone.
        loop_.post([alive = std::weak_ptr(alive_), this] {
            if (!alive.expired()) {
                schedule_flush();
            }
        });
    }
}

/// A guest prints byte by byte: gathering for a moment spares a wake-up and a socket buffer per
/// byte.
void ConsolePort::schedule_flush() {
    if (frozen_) {
        return; // What is printed now stays where save() finds it; thaw() takes it.
    }
    auto timer = loop_.schedule(gather_time, std::chrono::nanoseconds(0), [this] {
        if (!frozen_) {
            absorb_fresh();
            flush_clients();
        }
    });
    if (timer.has_value()) {
        flush_timer_ = std::move(*timer);
    } else {
        absorb_fresh();
        flush_clients();
    }
}

void ConsolePort::absorb_fresh() {
    {
        const std::lock_guard lock(mutex_);
        if (fresh_dropped_ != 0) {
            // Bytes are missing between the backlog and what came after: only the newer part is
            // kept.
            dropped_ += fresh_dropped_ + backlog_.size();
            backlog_offset_ += backlog_.size() + std::exchange(fresh_dropped_, 0);
            backlog_.clear();
        }
        backlog_ += fresh_;
        fresh_.clear();
        flush_posted_ = false;
    }
    if (backlog_.size() > backlog_bytes_max) {
        const std::size_t excess = backlog_.size() - backlog_bytes_max;
        const std::uint64_t new_start = backlog_offset_ + excess;
        dropped_ +=
            new_start > read_offset_ ? new_start - std::max(read_offset_, backlog_offset_) : 0;
        backlog_.erase(0, excess);
        backlog_offset_ = new_start;
    }
}

void ConsolePort::flush_clients() {
    for (auto client = clients_.begin(); client != clients_.end();) {
        client = flush(*client) ? std::next(client) : clients_.erase(client);
    }
}

/// Sends what the client has not seen; false if it is gone.
bool ConsolePort::flush(Client& client) {
    client.offset = std::max(client.offset, backlog_offset_);
    while (!frozen_ && client.offset < backlog_offset_ + backlog_.size()) {
        const std::string_view rest =
            std::string_view(backlog_).substr(client.offset - backlog_offset_);
        const ssize_t n =
            ::send(client.fd.raw(), rest.data(), rest.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            if (errno != EAGAIN) {
                return false;
            }
            break;
        }
        client.offset += static_cast<std::uint64_t>(n);
        read_offset_ = std::max(read_offset_, client.offset);
    }
    update_events(client);
    return true;
}

void ConsolePort::freeze() {
    take_adopted();
    absorb_fresh();
    frozen_ = true;
    listen_watch_.reset(); // Whoever connects waits in the listener's queue.
    for (Client& client : clients_) {
        update_events(client);
    }
}

void ConsolePort::thaw() {
    take_adopted();
    frozen_ = false;
    if (listener_ && !listen_watch_.active()) {
        const Status watched = watch_listener();
        if (!watched.has_value()) {
            log::error("console_listen_failed", {{"reason", watched.error().to_string()}});
        }
    }
    absorb_fresh();
    flush_clients();
    input_ready();
}

Result<ConsolePortState> ConsolePort::save() const {
    ConsolePortState state{
        .backlog = backlog_, .backlog_offset = backlog_offset_, .read_offset = read_offset_};
    {
        // The last bytes printed before the guest stopped may still be on their way to the backlog.
        const std::lock_guard lock(mutex_);
        if (fresh_dropped_ != 0) {
            state.backlog_offset += state.backlog.size() + fresh_dropped_;
            state.backlog.clear();
        }
        state.backlog += fresh_;
    }
    if (state.backlog.size() > backlog_bytes_max) {
        const std::size_t excess = state.backlog.size() - backlog_bytes_max;
        state.backlog.erase(0, excess);
        state.backlog_offset += excess;
    }
    state.read_offset = std::max(state.read_offset, state.backlog_offset);
    for (const Client& client : clients_) {
        state.clients.push_back({.fd = GODWIT_TRY(client.fd.duplicate()),
                                 .offset = std::max(client.offset, state.backlog_offset),
                                 .pending_input = client.pending_input});
    }
    return state;
}

void ConsolePort::adopt(ConsolePortState state) {
    frozen_ = true;
    adopted_ = std::move(state);
}

void ConsolePort::take_adopted() {
    if (!adopted_.has_value()) {
        return;
    }
    ConsolePortState state = *std::exchange(adopted_, std::nullopt);
    backlog_ = std::move(state.backlog);
    backlog_offset_ = state.backlog_offset;
    read_offset_ = state.read_offset;
    for (ConsoleClientState& client : state.clients) {
        add_client(std::move(client.fd), client.offset, std::move(client.pending_input));
    }
}

void ConsolePort::close() {
    listen_watch_.reset();
    listener_.reset();
}

void ConsolePort::flush_all() {
    take_adopted();
    absorb_fresh();
    frozen_ = false;
    flush_clients();
    for (auto client = clients_.begin(); client != clients_.end(); ++client) {
        while (client->offset < backlog_offset_ + backlog_.size()) {
            pollfd room{.fd = client->fd.raw(), .events = POLLOUT, .revents = 0};
            if (::poll(&room, 1, static_cast<int>(last_words_time.count())) <= 0 ||
                !flush(*client)) {
                break; // A reader that takes nothing is not waited for.
            }
        }
    }
}

} // namespace godwit::vmm
