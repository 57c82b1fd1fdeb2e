#include "cli/daemon_client.h"

#include "control/program_path.h"
#include "sys/clock.h"
#include "sys/directory_watch.h"
#include "sys/process.h"
#include "sys/run_path.h"
#include "sys/stream.h"
#include "sys/unix_socket.h"

#include <sys/socket.h>

#include <fcntl.h>
#include <httplib.h>
#include <nlohmann/json.hpp>

#include <array>

namespace godwit::cli {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds start_time_max{15'000};
constexpr milliseconds try_again_after{1'000};
constexpr milliseconds call_time_max{30'000};
constexpr const char* idle_seconds = "60";

bool listens(const control::RunDirectory& run) {
    return sys::connect_stream(run.api_socket()).has_value();
}

/// The line a starting godwitd writes, or nothing if it ends without one.
std::string ready_line(const sys::Fd& pipe) {
    std::string text;
    std::array<std::byte, 512> bytes{};
    while (text.find('\n') == std::string::npos) {
        const Result<bool> ready = sys::wait_ready(pipe, sys::Direction::input, start_time_max);
        if (!ready.has_value() || !*ready) {
            break;
        }
        const Result<std::size_t> got = sys::read_some(pipe, bytes);
        if (!got.has_value() || *got == 0) {
            break;
        }
        text.append(reinterpret_cast<const char*>(bytes.data()), *got);
    }
    return text;
}

/// One attempt; busy if another godwitd has the run directory.
Status try_start_daemon(const control::RunDirectory& run) {
    const std::string program = control::program_path("GODWITD", "godwitd");
    sys::Pipe pipe = GODWIT_TRY(sys::create_pipe());
    const sys::Fd log = GODWIT_TRY(sys::open(run.log_file(), O_WRONLY | O_CREAT | O_APPEND, 0600));
    const sys::SpawnOptions options{
        .program = program,
        .arguments = {"--run-dir", run.path(), "--exit-when-idle", idle_seconds, "--ready-fd", "3"},
        .fds = {{.fd = &pipe.write_end, .number = 3}},
        .standard_error = &log,
        .new_session = true};
    GODWIT_TRY(sys::Process::spawn(options));
    pipe.write_end.reset();
    const Result<control::Json> line = control::parse_json(ready_line(pipe.read_end));
    if (!line.has_value() || !line->is_object()) {
        return Error(ErrorCode::internal, "godwitd did not start; see " + run.log_file());
    }
    return line->contains("error") ? Status(control::error_of((*line)["error"])) : ok();
}

/// Starts a godwitd. If another one has the run directory - another command has started it at the
/// same moment, or it is about to take it over - waits until that serves, or starts one once it has
/// ended without.
Status start_daemon(const control::RunDirectory& run) {
    GODWIT_TRY(run.prepare());
    const sys::DirectoryWatch watch = GODWIT_TRY(sys::DirectoryWatch::create(run.path()));
    const sys::Moment give_up = sys::system_clock().now() + start_time_max;
    do {
        Status started = try_start_daemon(run);
        if (started.has_value() || started.error().code() != ErrorCode::busy) {
            return std::move(started).with_context("start godwitd");
        }
        while (!listens(run) &&
               GODWIT_TRY(sys::wait_ready(watch.fd(), sys::Direction::input, try_again_after))) {
            watch.drain();
        }
        if (listens(run)) {
            return ok();
        }
    } while (sys::system_clock().now() < give_up);
    return Error(ErrorCode::timeout,
                 "another godwitd holds '" + run.lock_file() + "' but does not answer");
}

httplib::Client http_client(const control::RunDirectory& run, milliseconds timeout) {
    httplib::Client client(run.api_socket(), 80);
    client.set_address_family(AF_UNIX);
    client.set_default_headers({{"Host", "localhost"}});
    client.set_connection_timeout(5);
    client.set_read_timeout(timeout);
    return client;
}

Error lost(const control::RunDirectory& run) {
    return Error(ErrorCode::peer_closed,
                 "godwitd went away or does not answer; see " + run.log_file());
}

Result<control::Json> body_of(const httplib::Response& response) {
    control::JsonLimits limits;
    limits.bytes_max = 64UL * 1024 * 1024;
    Result<control::Json> body = control::parse_json(response.body, limits);
    if (!body.has_value() || !body->is_object()) {
        return Error(ErrorCode::corrupt,
                     "godwitd's answer is no JSON object (HTTP " + std::to_string(response.status) +
                         ")");
    }
    if (body->contains("error") && (*body)["error"].is_object() && response.status >= 400) {
        return control::error_of((*body)["error"]);
    }
    return body;
}

} // namespace

Result<DaemonClient> DaemonClient::connect(const std::string& run_directory) {
    control::RunDirectory run = GODWIT_TRY(
        control::RunDirectory::at(run_directory.empty() ? sys::default_run_path() : run_directory));
    if (!listens(run)) {
        GODWIT_TRY(start_daemon(run));
    }
    return DaemonClient(std::move(run));
}

Result<control::Json> DaemonClient::call(std::string_view method,
                                         const std::string& path,
                                         const control::Json& body,
                                         milliseconds timeout) const {
    httplib::Client client = http_client(run_, timeout);
    httplib::Request request;
    request.method = method;
    request.path = path;
    if (method != "GET") {
        request.body = body.is_null() ? "" : control::json_text(body);
        request.set_header("Content-Type", "application/json");
    }
    const httplib::Result result = client.send(request);
    return result ? body_of(*result) : Result<control::Json>(lost(run_));
}

Result<control::Json> DaemonClient::get(const std::string& path) const {
    return call("GET", path, {}, call_time_max);
}

Result<control::Json> DaemonClient::put(const std::string& path, const control::Json& body) const {
    return call("PUT", path, body, call_time_max);
}

Status EventStreamParser::feed(std::string_view bytes,
                               const std::function<void(const std::string&)>& data) {
    for (const char c : bytes) {
        if (c != '\n') {
            line_ += c;
            if (line_.size() > line_bytes_max) {
                return Error(ErrorCode::corrupt, "an event is too long");
            }
            continue;
        }
        constexpr std::string_view field = "data: ";
        if (line_.starts_with(field)) {
            data(line_.substr(field.size()));
        }
        line_.clear();
    }
    return ok();
}

Status DaemonClient::events(const std::string& query,
                            const std::function<bool(const std::string&)>& event) const {
    httplib::Client client = http_client(run_, call_time_max);
    EventStreamParser parser;
    bool go_on = true;
    int status = 0;
    Status parsed = ok();
    const httplib::Result result = client.Get(
        "/api/v1/events" + query,
        [&](const httplib::Response& response) {
            status = response.status;
            return status == 200;
        },
        [&](const char* data, std::size_t bytes) {
            parsed = parser.feed(std::string_view(data, bytes),
                                 [&](const std::string& json) { go_on = go_on && event(json); });
            return go_on && parsed.has_value();
        });
    GODWIT_TRY(std::move(parsed));
    if (!go_on || (result && status == 200)) {
        return ok();
    }
    if (status < 400) {
        return lost(run_);
    }
    // What was refused is refused again, this time with the text of the error.
    const Result<control::Json> answer = get("/api/v1/events" + query);
    return answer.has_value() ? lost(run_) : answer.error();
}

} // namespace godwit::cli
