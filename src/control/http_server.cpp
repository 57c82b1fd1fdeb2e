#include "control/http_server.h"

#include "base/log.h"
#include "sys/stream.h"
#include "sys/thread.h"

#include <sys/epoll.h>

#include <httplib.h>

#include <charconv>
#include <optional>

namespace godwit::control {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds io_time_max{5'000};
/// How often a follower without news gets a comment, so that a dead one is noticed.
constexpr milliseconds event_wait{1'000};
constexpr std::size_t events_per_write = 64;

/// A connection as cpp-httplib wants it, with time limits on both directions.
class SocketStream final : public httplib::Stream {
  public:
    explicit SocketStream(const sys::Fd& fd) : fd_(fd) {}
    bool is_readable() const override { return ready(sys::Direction::input, io_time_max); }
    bool is_writable() const override { return ready(sys::Direction::output, io_time_max); }
    ssize_t read(char* data, size_t size) override {
        if (!is_readable()) {
            return -1;
        }
        const auto got = sys::read_some(fd_, std::as_writable_bytes(std::span(data, size)));
        return got.has_value() ? static_cast<ssize_t>(*got) : -1;
    }
    ssize_t write(const char* data, size_t size) override {
        if (!is_writable()) {
            return -1;
        }
        const auto done = sys::write_some(fd_, std::as_bytes(std::span(data, size)));
        return done.has_value() ? static_cast<ssize_t>(*done) : -1;
    }
    void get_remote_ip_and_port(std::string& ip, int& port) const override {
        ip.clear();
        port = 0;
    }
    void get_local_ip_and_port(std::string& ip, int& port) const override {
        ip.clear();
        port = 0;
    }
    socket_t socket() const override { return fd_.raw(); }

  private:
    [[nodiscard]] bool ready(sys::Direction direction, milliseconds time) const {
        const Result<bool> result = sys::wait_ready(fd_, direction, time);
        return result.has_value() && *result;
    }
    const sys::Fd& fd_;
};

/// Runs a request on the control thread and waits for its answer.
ApiResponse ask_control(sys::EventLoop& loop, Api& api, ApiRequest request) {
    std::mutex mutex;
    std::condition_variable answered;
    std::optional<Result<ApiResponse>> answer;
    Reply<ApiResponse> reply([&](Result<ApiResponse> response) {
        const std::lock_guard lock(mutex);
        answer.emplace(std::move(response));
        answered.notify_one();
    });
    loop.post([&api, request = std::move(request), reply = std::move(reply)]() mutable {
        api.handle(std::move(request), std::move(reply));
    });
    std::unique_lock lock(mutex);
    answered.wait(lock, [&] { return answer.has_value(); });
    return answer->has_value() ? std::move(**answer) : error_response(answer->error());
}

void put(httplib::Response& to, const ApiResponse& from) {
    to.status = from.status;
    to.set_content(from.body, from.content_type);
}

std::optional<std::uint64_t> event_id(const std::string& text) {
    std::uint64_t id = 0;
    const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), id);
    const bool good = failure == std::errc() && end == text.data() + text.size();
    return good ? std::optional(id) : std::nullopt;
}

std::string stream_text(const EventLog::Batch& batch, bool first) {
    std::string text;
    if (first && batch.gap) {
        text += "event: gap\ndata: {\"event\":\"gap\"}\n\n";
    }
    for (const Event& event : batch.events) {
        text += "id: " + std::to_string(event.id) + "\nevent: " + event.type +
                "\ndata: " + event.json + "\n\n";
    }
    return text;
}

} // namespace

/// The protocol part of cpp-httplib without its sockets and threads.
class HttpServer::Engine final : public httplib::Server {
  public:
    Engine(HttpServer& owner) : owner_(owner) { // NOLINT(google-explicit-constructor)
        // Streams run while this is not INVALID_SOCKET; no descriptor of ours is meant.
        svr_sock_ = 0;
        set_payload_max_length(request_body_bytes_max);
        const auto handler = [this](const httplib::Request& request, httplib::Response& response) {
            serve(request, response);
        };
        Get(".*", handler);
        Post(".*", handler);
        Put(".*", handler);
        Delete(".*", handler);
        Patch(".*", handler);
        Options(".*", handler);
        // Bodies come whole and plain, so that their size is known before they are read.
        set_pre_routing_handler([](const httplib::Request& request, httplib::Response& response) {
            if (!request.has_header("Transfer-Encoding") &&
                !request.has_header("Content-Encoding")) {
                return HandlerResponse::Unhandled;
            }
            put(response,
                error_response(
                    Error(ErrorCode::invalid_argument,
                          "a body must come with Content-Length and without encodings")));
            return HandlerResponse::Handled;
        });
        set_error_handler([](const httplib::Request&, httplib::Response& response) {
            if (response.body.empty()) {
                const int status = response.status;
                put(response,
                    error_response(Error(ErrorCode::invalid_argument,
                                         "not a request this API understands (HTTP " +
                                             std::to_string(status) + ")")));
                response.status = status;
            }
        });
        set_exception_handler(
            [](const httplib::Request&, httplib::Response& response, const std::exception_ptr&) {
                put(response, error_response(Error(ErrorCode::internal, "the request failed")));
            });
    }
    void run(const sys::Fd& connection) {
        SocketStream stream(connection);
        bool closed = false;
        process_request(stream, true, closed, [](httplib::Request& request) {
            // A request without a body need not say so.
            if (!request.has_header("Content-Length") && !request.has_header("Transfer-Encoding")) {
                request.set_header("Content-Length", "0");
            }
        });
    }
    void end_streams() { svr_sock_ = INVALID_SOCKET; }

  private:
    void serve(const httplib::Request& request, httplib::Response& response) {
        if (request.method == "GET" && request.path == Api::events_route) {
            serve_events(request, response);
            return;
        }
        ApiRequest asked{
            .method = request.method, .path = request.path, .query = {}, .body = request.body};
        for (const auto& [name, value] : request.params) {
            asked.query.emplace(name, value);
        }
        put(response, ask_control(owner_.loop_, owner_.api_, std::move(asked)));
    }

    void serve_events(const httplib::Request& request, httplib::Response& response) {
        std::uint64_t since = owner_.events_.newest();
        if (request.has_param("since") || request.has_header("Last-Event-ID")) {
            const std::string text = request.has_param("since")
                                         ? request.get_param_value("since")
                                         : request.get_header_value("Last-Event-ID");
            const std::optional<std::uint64_t> id = event_id(text);
            if (!id.has_value()) {
                put(response,
                    error_response(Error(ErrorCode::invalid_argument,
                                         "since: must be the id of an event, not '" +
                                             text.substr(0, 40) + "'")));
                return;
            }
            since = *id;
        }
        const bool follow = request.get_param_value("follow") != "false";
        if (!follow) {
            const EventLog::Batch batch =
                owner_.events_.read(since, events_kept_max, milliseconds(0));
            response.set_content(stream_text(batch, true), "text/event-stream");
            return;
        }
        if (owner_.streams_.fetch_add(1) >= event_streams_max) {
            owner_.streams_.fetch_sub(1);
            put(response,
                error_response(
                    Error(ErrorCode::resource_exhausted, "too many follow the events already")));
            return;
        }
        response.set_header("Cache-Control", "no-store");
        response.set_chunked_content_provider(
            "text/event-stream",
            [this, since, first = true](size_t, httplib::DataSink& sink) mutable {
                return send_events(since, first, sink);
            },
            [this](bool) { owner_.streams_.fetch_sub(1); });
    }

    bool send_events(std::uint64_t& since, bool& first, httplib::DataSink& sink) {
        if (first) {
            // Tells the follower at once that nothing after this is missed.
            const std::string hello = ": following\n\n";
            sink.write(hello.data(), hello.size());
        }
        const EventLog::Batch batch = owner_.events_.read(since, events_per_write, event_wait);
        std::string text = stream_text(batch, first);
        first = false;
        if (!batch.events.empty()) {
            since = batch.events.back().id;
        } else if (batch.closed) {
            sink.done();
            return true;
        } else if (text.empty()) {
            text = ":\n\n"; // Finds out whether the follower is still there.
        }
        return sink.write(text.data(), text.size());
    }

    HttpServer& owner_;
};

HttpServer::HttpServer(sys::EventLoop& loop, sys::Listener listener, Api& api, EventLog& events)
    : loop_(loop), listener_(std::move(listener)), api_(api), events_(events),
      engine_(std::make_unique<Engine>(*this)) {}

Result<std::unique_ptr<HttpServer>>
HttpServer::create(sys::EventLoop& loop, const std::string& path, Api& api, EventLog& events) {
    sys::Listener listener = GODWIT_TRY(sys::Listener::create(path, sys::SocketKind::stream, 0600));
    std::unique_ptr<HttpServer> made(new HttpServer(loop, std::move(listener), api, events));
    made->last_end_ = sys::system_clock().now();
    HttpServer* const raw = made.get();
    made->watch_ = GODWIT_TRY(
        loop.watch(made->listener_.fd(), EPOLLIN, [raw](std::uint32_t) { raw->accept_all(); }));
    for (std::size_t i = 0; i < http_workers; ++i) {
        made->workers_.push_back(sys::start_thread("http", [raw] { raw->work(); }));
    }
    return made;
}

HttpServer::~HttpServer() {
    stop();
}

void HttpServer::accept_all() {
    for (;;) {
        Result<sys::Fd> connection = listener_.accept();
        if (!connection.has_value()) {
            return;
        }
        const std::lock_guard lock(mutex_);
        // Over the limit a connection is closed unanswered: nobody reads what we would say.
        if (waiting_.size() < http_connections_waiting_max) {
            waiting_.push_back(std::move(*connection));
            arrived_.notify_one();
        }
    }
}

void HttpServer::work() {
    for (;;) {
        sys::Fd connection;
        {
            std::unique_lock lock(mutex_);
            arrived_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
            if (stopping_) {
                return;
            }
            connection = std::move(waiting_.front());
            waiting_.pop_front();
            ++serving_;
        }
        engine_->run(connection);
        connection.reset();
        const std::lock_guard lock(mutex_);
        --serving_;
        last_end_ = sys::system_clock().now();
    }
}

bool HttpServer::quiet_since(sys::Moment since) const {
    const std::lock_guard lock(mutex_);
    return serving_ == 0 && waiting_.empty() && last_end_ <= since;
}

void HttpServer::stop() {
    if (stopping_.exchange(true)) {
        return;
    }
    watch_.reset();
    engine_->end_streams();
    {
        const std::lock_guard lock(mutex_);
        waiting_.clear();
        arrived_.notify_all();
    }
    // Workers may wait for answers from this thread: it keeps answering until they are gone.
    std::atomic<bool> joined{false};
    std::jthread joiner = sys::start_thread("http-join", [this, &joined] {
        workers_.clear();
        joined = true;
        loop_.post([] {});
    });
    while (!joined) {
        const Status served = loop_.run_once(milliseconds(-1));
        if (!served.has_value()) {
            log::error("control_loop_failed", {{"reason", served.error().to_string()}});
            break;
        }
    }
}

} // namespace godwit::control
