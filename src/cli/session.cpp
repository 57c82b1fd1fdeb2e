#include "cli/session.h"

#include "cli/disk_text.h"
#include "cli/size_text.h"
#include "cli/table.h"
#include "sys/clock.h"
#include "sys/terminal.h"

#include <nlohmann/json.hpp>

#include <csignal>
#include <cstdio>

namespace godwit::cli {

namespace {

using std::chrono::milliseconds;

constexpr int wait_ms = 1'000;
/// One godwitd ends and another one takes its place.
constexpr milliseconds change_time_max{60'000};

volatile std::sig_atomic_t interrupts = 0;

void count_interrupt(int number) {
    interrupts = interrupts + 1;
    if (interrupts > 1) {
        std::signal(number, SIG_DFL);
    }
}

/// Ctrl-C is counted while this lives; a third one ends the program.
class InterruptCounter {
  public:
    InterruptCounter() {
        struct sigaction counting{};
        counting.sa_handler = count_interrupt;
        counting.sa_flags = SA_RESTART;
        ::sigaction(SIGINT, &counting, &before_);
    }
    InterruptCounter(const InterruptCounter&) = delete;
    InterruptCounter& operator=(const InterruptCounter&) = delete;
    ~InterruptCounter() { ::sigaction(SIGINT, &before_, nullptr); }

  private:
    struct sigaction before_{};
};

/// One line on stderr that is written over; silent where nobody watches.
class ProgressLine {
  public:
    explicit ProgressLine(bool wanted) {
        const Result<sys::Fd> stream = sys::standard_stream(2);
        shown_ = wanted && stream.has_value() && sys::is_terminal(*stream);
    }
    ProgressLine(const ProgressLine&) = delete;
    ProgressLine& operator=(const ProgressLine&) = delete;
    ~ProgressLine() {
        if (shown_) {
            std::fputs("\r\033[K", stderr);
        }
    }
    void show(const control::Json& operation) const {
        if (!shown_) {
            return;
        }
        const auto duration = control::number_member(operation, "duration_us");
        const std::string text = control::text_member(operation, "kind") + " " +
                                 control::text_member(operation, "machine") + ": " +
                                 control::text_member(operation, "phase") + ", " +
                                 duration_text(static_cast<std::int64_t>(duration)) +
                                 disk_move_progress(operation);
        std::fprintf(stderr, "\r\033[K%s", printable(text).c_str());
        std::fflush(stderr);
    }

  private:
    bool shown_ = false;
};

} // namespace

void Session::print(const control::Json& document, const std::string& text) const {
    const std::string out = json ? control::json_text(document) + "\n" : text;
    std::fwrite(out.data(), 1, out.size(), stdout);
    std::fflush(stdout);
}

ExitCode Session::fail(const Error& error) const {
    return fail(error, exit_code_of(error));
}

ExitCode Session::fail(const Error& error, ExitCode code) const {
    const std::string text = json ? control::json_text({{"error", control::json_of(error)}})
                                  : "godwit: " + printable(error.to_string());
    std::fprintf(stderr, "%s\n", text.c_str());
    return code;
}

void Session::note(const std::string& text) const {
    if (!json) {
        std::fprintf(stderr, "%s\n", printable(text).c_str());
    }
}

ExitCode exit_code_of(const Error& error) noexcept {
    return error.code() == ErrorCode::invalid_argument ? ExitCode::usage : ExitCode::failed;
}

namespace {

Following operation_of(const DaemonClient& daemon, const control::Json& operation) {
    const std::string path =
        "/api/v1/operations/" + std::to_string(control::number_member(operation, "id"));
    return {.next =
                [&daemon, path](const control::Json& last) {
                    const std::uint64_t revision = control::number_member(last, "revision");
                    return daemon.get(path + "?wait_ms=" + std::to_string(wait_ms) +
                                      "&revision=" + std::to_string(revision));
                },
            .cancel = [&daemon, path]() -> Status {
                GODWIT_TRY(daemon.call("DELETE", path, {}, milliseconds(10'000)));
                return ok();
            }};
}

} // namespace

Result<control::Json>
follow(const Session& session, control::Json operation, const Following& following) {
    const ProgressLine progress(!session.json);
    return follow(session, std::move(operation), following, [&](const control::Json& now) {
        if (control::text_member(now, "state") == "running") {
            progress.show(now);
        }
    });
}

Result<control::Json>
follow(const Session& session, const DaemonClient& daemon, control::Json operation) {
    const Following following = operation_of(daemon, operation);
    return follow(session, std::move(operation), following);
}

Result<control::Json> follow(const Session& session,
                             const DaemonClient& daemon,
                             control::Json operation,
                             const std::function<void(const control::Json&)>& show) {
    const Following following = operation_of(daemon, operation);
    return follow(session, std::move(operation), following, show);
}

Result<control::Json> follow(const Session& session,
                             control::Json operation,
                             const Following& following,
                             const std::function<void(const control::Json&)>& show) {
    const InterruptCounter counter;
    int cancelled = 0;
    while (control::text_member(operation, "state") == "running") {
        show(operation);
        if (interrupts > cancelled) {
            cancelled = interrupts;
            const Status answer = following.cancel();
            if (!answer.has_value()) {
                session.note("\ncannot cancel: " + answer.error().to_string());
            }
        }
        operation = GODWIT_TRY(following.next(operation));
    }
    show(operation);
    return operation;
}

Result<control::Json>
follow_to_the_next_daemon(const Session& session,
                          const DaemonClient& daemon,
                          control::Json operation,
                          const std::function<void(const control::Json&)>& show) {
    const std::string path =
        "/api/v1/operations/" + std::to_string(control::number_member(operation, "id"));
    const sys::Moment give_up = sys::system_clock().now() + change_time_max;
    Result<control::Json> ended = follow(session, daemon, std::move(operation), show);
    // The first ends while it still answers some; then the next attempt waits for the second.
    while (!ended.has_value() && sys::system_clock().now() < give_up &&
           (ended.error().code() == ErrorCode::peer_closed ||
            ended.error().code() == ErrorCode::cancelled)) {
        const Result<DaemonClient> next = session.daemon();
        Result<control::Json> known =
            next.has_value() ? next->get(path) : Result<control::Json>(next.error());
        ended =
            known.has_value() ? follow(session, *next, std::move(*known), show) : std::move(known);
    }
    if (!ended.has_value() && ended.error().code() == ErrorCode::not_found) {
        return Error(ErrorCode::not_found,
                     "godwitd was replaced, but the one that serves now knows nothing of this "
                     "exchange; see 'godwit ps' and 'godwit recover'");
    }
    return ended;
}

ExitCode exit_code_of_operation(const control::Json& operation) {
    if (control::text_member(operation, "state") == "succeeded") {
        return ExitCode::done;
    }
    const std::string outcome = operation.is_object() && operation.contains("result")
                                    ? control::text_member(operation["result"], "outcome")
                                    : "";
    if (outcome == "failed_after_commit" || outcome == "lost") {
        return ExitCode::failed_after_commit;
    }
    const std::string code = operation.is_object() && operation.contains("error")
                                 ? control::text_member(operation["error"], "code")
                                 : "";
    return outcome.empty() && code == "invalid_argument" ? ExitCode::usage : ExitCode::failed;
}

} // namespace godwit::cli
