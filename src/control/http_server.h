#pragma once

/// The API's UNIX socket: HTTP/1.1 by cpp-httplib over connections we accept ourselves, so that
/// descriptors are close-on-exec, their number is limited and slow peers are cut off.
///
/// One request per connection. Requests are parsed on worker threads and answered by the control
/// thread; the stream of events stays on its worker. Created and destroyed on the control thread.

#include "base/result.h"
#include "control/api.h"
#include "control/event_log.h"
#include "sys/event_loop.h"
#include "sys/unix_socket.h"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace godwit::control {

inline constexpr std::size_t http_workers = 32;
inline constexpr std::size_t http_connections_waiting_max = 64;
/// Fewer than workers, so that followers never keep others out.
inline constexpr std::size_t event_streams_max = 16;

class HttpServer {
  public:
    [[nodiscard]] static Result<std::unique_ptr<HttpServer>>
    create(sys::EventLoop& loop, const std::string& path, Api& api, EventLog& events);
    HttpServer(const HttpServer&) = delete;
    HttpServer& operator=(const HttpServer&) = delete;
    /// stop(), if that has not happened.
    ~HttpServer();

    /// Removes the socket, takes no more connections and joins the workers. Whoever waits for an
    /// answer gets "cancelled". Control thread; EventLog::close() must have been called.
    void stop();
    /// Nobody is connected now and nobody was since `since`.
    [[nodiscard]] bool quiet_since(sys::Moment since) const;

  private:
    class Engine;
    HttpServer(sys::EventLoop& loop, sys::Listener listener, Api& api, EventLog& events);
    void accept_all();
    void work();

    sys::EventLoop& loop_;
    sys::Listener listener_;
    Api& api_;
    EventLog& events_;
    std::unique_ptr<Engine> engine_;
    std::atomic<bool> stopping_{false};
    std::atomic<std::size_t> streams_{0};

    mutable std::mutex mutex_;
    std::condition_variable arrived_;
    std::deque<sys::Fd> waiting_; ///< Guarded by mutex_.
    std::size_t serving_ = 0;     ///< Guarded by mutex_.
    sys::Moment last_end_{};      ///< When a connection was last open. Guarded by mutex_.

    sys::EventLoop::Handle watch_;
    std::vector<std::jthread> workers_; ///< Last, so that they join first.
};

} // namespace godwit::control
