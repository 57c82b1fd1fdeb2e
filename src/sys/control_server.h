#pragma once

/// The control socket of a process: JSON requests in packets, JSON answers and events back
/// (docs/formats/vmm-control.md). Nobody but the user the process runs as is served.
///
/// Thread rule: the loop's thread; a Reply may be answered from any thread.

#include "base/result.h"
#include "sys/event_loop.h"
#include "sys/unix_socket.h"

#include <nlohmann/json.hpp>

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

namespace godwit::sys {

inline constexpr std::size_t control_connections_max = 16;
inline constexpr std::size_t control_request_bytes_max = std::size_t{64} * 1024;

class ControlServer {
  public:
    /// The way back to whoever asked. Answered at most once; unanswered ones are answered with an
    /// error.
    class Reply {
      public:
        Reply(ControlServer& server, std::uint64_t connection, nlohmann::json id)
            : server_(&server), connection_(connection), id_(std::move(id)) {}
        void result(const nlohmann::json& value) const;
        /// With descriptors.
        void result(const nlohmann::json& value, std::vector<Fd> passed) const;
        void error(const Error& error) const;
        [[nodiscard]] std::uint64_t connection() const noexcept { return connection_; }

      private:
        void answer(nlohmann::json message,
                    std::shared_ptr<const std::vector<Fd>> passed = nullptr) const;
        ControlServer* server_;
        std::uint64_t connection_;
        nlohmann::json id_;
    };

    struct Request {
        std::string method;
        nlohmann::json params;
        std::vector<Fd> fds;
        Reply reply;
    };
    using Handler = std::function<void(Request)>;

    [[nodiscard]] static Result<std::unique_ptr<ControlServer>>
    create(EventLoop& loop, Listener listener, Handler handler);
    ControlServer(const ControlServer&) = delete;
    ControlServer& operator=(const ControlServer&) = delete;
    ~ControlServer() = default;

    /// The listener's path can be seen by now: it goes with this object.
    void adopt_path() noexcept { listener_.find_path(); }
    [[nodiscard]] const Fd& listening_socket() const noexcept { return listener_.fd(); }
    /// Lets nobody in until begin_again(); who is in stays.
    void stop_listening() noexcept { listen_watch_.reset(); }
    [[nodiscard]] Status begin_again();
    /// The path is another process's now, and stays when this object goes.
    void abandon_path() noexcept { listener_.abandon_path(); }
    /// From now on this connection gets events.
    void subscribe(std::uint64_t connection);
    /// Sends an event to all who subscribed.
    void broadcast(const nlohmann::json& event);

  private:
    struct Connection {
        std::uint64_t id = 0;
        MessageSocket socket;
        EventLoop::Handle watch;
        bool subscribed = false;
    };

    ControlServer(EventLoop& loop, Listener listener, Handler handler)
        : loop_(loop), listener_(std::move(listener)), handler_(std::move(handler)) {}
    void accept_connection();
    void serve(std::uint64_t id);
    void handle(Connection& connection, Message message);
    void send(std::uint64_t id, const std::string& text, const std::vector<Fd>* passed = nullptr);
    [[nodiscard]] std::list<Connection>::iterator find(std::uint64_t id);

    EventLoop& loop_;
    Listener listener_;
    Handler handler_;
    EventLoop::Handle listen_watch_;
    std::list<Connection> connections_;
    std::uint64_t next_id_ = 1;
};

} // namespace godwit::sys
