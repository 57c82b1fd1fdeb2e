#include "control/daemon.h"

#include "base/log.h"
#include "base/version.h"
#include "control/api.h"
#include "control/http_server.h"
#include "control/program_path.h"
#include "control/supervisor.h"
#include "sys/clock.h"
#include "sys/file_lock.h"

#include <sys/epoll.h>

#include <nlohmann/json.hpp>
#include <unistd.h>

namespace godwit::control {

namespace {

void tell(sys::Fd& ready, const Json& line) {
    if (ready.valid()) {
        const std::string text = json_text(line) + "\n";
        discard(sys::write_all(ready, std::as_bytes(std::span(text))),
                "whoever started us has gone");
        ready.reset();
    }
}

Result<sys::FileLock> lock(const RunDirectory& run) {
    Result<sys::FileLock> held = sys::FileLock::acquire(run.lock_file());
    if (!held.has_value() && held.error().code() == ErrorCode::busy) {
        return Error(ErrorCode::busy, "another godwitd serves '" + run.path() + "' already");
    }
    return held;
}

/// The parts of a running daemon, in the order they need each other.
class Daemon {
  public:
    Daemon(const DaemonOptions& options, RunDirectory run, std::unique_ptr<sys::EventLoop> loop)
        : idle_limit_(options.exit_when_idle), run_(std::move(run)), loop_(std::move(loop)),
          events_(sys::system_clock()), operations_(*loop_, events_, metrics_, sys::system_clock()),
          supervisor_({.loop = *loop_,
                       .run = run_,
                       .events = events_,
                       .operations = operations_,
                       .metrics = metrics_,
                       .clock = sys::system_clock(),
                       .vmm_program = options.vmm_program.empty()
                                          ? program_path("GODWIT_VMM", "godwit-vmm")
                                          : options.vmm_program}),
          api_(supervisor_,
               operations_,
               metrics_,
               {.build = {.version = std::string(version()), .build_id = std::string(build_id())},
                .run_directory = run_.path(),
                .pid = ::getpid()}) {}

    [[nodiscard]] Status serve(const sys::EventFd& stop, sys::Fd& ready) {
        const sys::EventLoop::Handle stopping =
            GODWIT_TRY(loop_->watch(stop.fd(), EPOLLIN, [&](std::uint32_t) {
                stop.drain();
                loop_->stop();
            }));
        Status opened = ok();
        supervisor_.adopt_all(Reply<void>([&](const Status& adopted) {
            opened = adopted.has_value() ? open() : adopted;
            if (opened.has_value()) {
                tell(ready, {{"ok", true}});
            } else {
                loop_->stop();
            }
        }));
        Status served = loop_->run();
        close();
        GODWIT_TRY(std::move(opened));
        return served;
    }

  private:
    Status open() {
        server_ = GODWIT_TRY(HttpServer::create(*loop_, run_.api_socket(), api_, events_));
        log::info("godwitd_ready",
                  {{"run_directory", run_.path()}, {"machines", supervisor_.machine_count()}});
        if (idle_limit_.count() > 0) {
            GODWIT_TRY(look_at_idleness());
        }
        return ok();
    }

    /// Looks once per quarter of the limit; ends when nothing happened for the whole of it.
    Status look_at_idleness() {
        const auto period = std::chrono::duration_cast<std::chrono::milliseconds>(idle_limit_) / 4;
        idle_timer_ = GODWIT_TRY(loop_->schedule(period, period, [this] {
            const sys::Moment now = sys::system_clock().now();
            if (supervisor_.machine_count() > 0 || operations_.running_count() > 0) {
                busy_at_ = now;
            } else if (now - busy_at_ >= idle_limit_ && server_->quiet_since(now - idle_limit_)) {
                log::info("godwitd_idle", {{"seconds", idle_limit_.count()}});
                loop_->stop();
            }
        }));
        busy_at_ = sys::system_clock().now();
        return ok();
    }

    void close() {
        idle_timer_.reset();
        events_.close();
        api_.close();
        operations_.close();
        supervisor_.let_go();
        if (server_ != nullptr) {
            server_->stop();
        }
        log::info("godwitd_ended", {{"run_directory", run_.path()}});
    }

    std::chrono::seconds idle_limit_;
    RunDirectory run_;
    std::unique_ptr<sys::EventLoop> loop_;
    EventLog events_;
    Metrics metrics_;
    Operations operations_;
    Supervisor supervisor_;
    Api api_;
    std::unique_ptr<HttpServer> server_;
    sys::Moment busy_at_;
    sys::EventLoop::Handle idle_timer_;
};

Status start_and_serve(const DaemonOptions& options, const sys::EventFd& stop, sys::Fd& ready) {
    RunDirectory run = GODWIT_TRY(RunDirectory::at(
        options.run_directory.empty() ? RunDirectory::default_path() : options.run_directory));
    GODWIT_TRY(run.prepare());
    const sys::FileLock held = GODWIT_TRY(lock(run));
    std::unique_ptr<sys::EventLoop> loop = GODWIT_TRY(sys::EventLoop::create());
    Daemon daemon(options, std::move(run), std::move(loop));
    return daemon.serve(stop, ready);
}

} // namespace

Status run_daemon(const DaemonOptions& options, const sys::EventFd& stop, sys::Fd ready) {
    Status ended = start_and_serve(options, stop, ready);
    if (!ended.has_value()) {
        tell(ready, {{"error", json_of(ended.error())}});
    }
    return ended;
}

} // namespace godwit::control
