/// Step 1 of a suspend-mode exchange: whether the new godwitd would take this one's place.

#include "control/suspend_run.h"

#include <sys/epoll.h>

#include <csignal>

namespace godwit::control {

namespace {

constexpr std::chrono::milliseconds check_time_max{5'000};
/// How a godwitd that does not know "--check" ends: a flag it does not have (CLI11, ExtrasError).
constexpr int unknown_flag_exit_code = 109;

} // namespace

/// The new godwitd is started with "--check" and what it will be started with, which it reads and
/// does nothing. An older one is asked for its version only.
void SuspendRun::check_daemon() {
    if (request_.daemon_program.empty() || !host_blockers_.empty()) {
        daemon_checked();
        return;
    }
    std::vector<std::string> arguments{
        "--check", "--run-dir", supervisor_.parts_.run.path(), "--vmm", request_.vmm_program};
    const auto& kept = supervisor_.parts_.succession.arguments;
    arguments.insert(arguments.end(), kept.begin(), kept.end());
    ask_daemon(std::move(arguments), DaemonKind::present);
}

void SuspendRun::ask_daemon(std::vector<std::string> arguments, DaemonKind kind) {
    auto process = sys::Process::spawn({.program = request_.daemon_program,
                                        .arguments = std::move(arguments),
                                        .fds = {},
                                        .standard_error = nullptr});
    if (!process.has_value()) {
        host_blockers_.push_back(process.error().to_string());
        daemon_checked();
        return;
    }
    daemon_check_ = std::move(*process);
    const auto look = [weak = weak_from_this(), kind](std::uint32_t) {
        if (const auto self = weak.lock(); self != nullptr && self->daemon_check_.has_value()) {
            self->daemon_answered(kind);
        }
    };
    auto watch = supervisor_.parts_.loop.watch(daemon_check_->fd(), EPOLLIN, look);
    if (watch.has_value()) {
        daemon_watch_ = std::move(*watch);
    }
    arm(check_time_max, [look] { look(0); });
}

/// It has ended, or its time is over.
void SuspendRun::daemon_answered(DaemonKind kind) {
    const auto end = daemon_check_->wait(std::chrono::milliseconds(0));
    const bool ended = end.has_value() && end->has_value() && !(*end)->signalled;
    discard(daemon_check_->signal(SIGKILL), "it may have ended");
    timer_.reset();
    daemon_watch_.reset();
    daemon_check_.reset();
    if (ended && (*end)->code == unknown_flag_exit_code && kind == DaemonKind::present) {
        ask_daemon({"--version"}, DaemonKind::older);
        return;
    }
    if (!ended || (*end)->code != 0) {
        host_blockers_.push_back("the new godwitd '" + request_.daemon_program +
                                 "' does not start with what it would be told (its log says why)");
    }
    daemon_checked();
}

} // namespace godwit::control
