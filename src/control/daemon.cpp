#include "control/daemon.h"

#include "base/log.h"
#include "base/version.h"
#include "control/api.h"
#include "control/host_heir.h"
#include "control/http_server.h"
#include "control/program_path.h"
#include "control/supervisor.h"
#include "sys/clock.h"
#include "sys/file_lock.h"
#include "sys/process.h"
#include "sys/run_path.h"

#include <sys/epoll.h>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include <optional>

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

Result<sys::FileLock> lock(const RunDirectory& run, sys::Fd inherited) {
    if (inherited.valid()) {
        return sys::FileLock::inherit(std::move(inherited));
    }
    Result<sys::FileLock> held = sys::FileLock::acquire(run.lock_file());
    if (!held.has_value() && held.error().code() == ErrorCode::busy) {
        return Error(ErrorCode::busy, "another godwitd serves '" + run.path() + "' already");
    }
    return held;
}

/// The parts of a running daemon, in the order they need each other.
class Daemon {
  public:
    Daemon(const DaemonOptions& options,
           const RunDirectory& run,
           sys::EventLoop& loop,
           const sys::FileLock& lock)
        : idle_limit_(options.exit_when_idle), run_(run), loop_(&loop),
          events_(sys::system_clock()), operations_(*loop_, events_, metrics_, sys::system_clock()),
          supervisor_({.loop = *loop_,
                       .run = run_,
                       .events = events_,
                       .operations = operations_,
                       .metrics = metrics_,
                       .clock = sys::system_clock(),
                       .vmm_program = options.vmm_program.empty()
                                          ? program_path("GODWIT_VMM", "godwit-vmm")
                                          : options.vmm_program,
                       .keeper_program = program_path("GODWIT_KEEPER", "godwit-keeper"),
                       .replace =
                           [this](std::string daemon, std::string vmm) {
                               replacement_ = {std::move(daemon), std::move(vmm)};
                               loop_->stop();
                           },
                       .pool_bytes = options.pool_bytes,
                       .succession = {.lock = &lock.fd(),
                                      .arguments = options.kept_arguments,
                                      .leave = [this] { loop_->stop(); }},
                       .partition = options.partition}),
          api_(supervisor_,
               operations_,
               metrics_,
               {.build = {.version = std::string(version()), .build_id = std::string(build_id())},
                .run_directory = run_.path(),
                .pid = ::getpid()}) {}

    /// Goes on where the godwitd before this one has left off.
    void inherit(HostHeir::Inheritance inheritance) {
        supervisor_.inherit_pool(std::move(inheritance.pool), inheritance.self);
        supervisor_.conclude(inheritance.operation, *inheritance.report);
    }

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

    /// The programs of the godwitd this process becomes, and of its VMMs; empty: none.
    struct Replacement {
        std::string daemon;
        std::string vmm;
    };
    [[nodiscard]] const Replacement& replacement() const noexcept { return replacement_; }

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
    const RunDirectory& run_;
    sys::EventLoop* loop_;
    EventLog events_;
    Metrics metrics_;
    Operations operations_;
    Supervisor supervisor_;
    Api api_;
    std::unique_ptr<HttpServer> server_;
    sys::Moment busy_at_;
    sys::EventLoop::Handle idle_timer_;
    Replacement replacement_;
};

/// This process becomes the new godwitd: same number, same lock. Comes back only if it cannot.
Error become(const Daemon::Replacement& next,
             const DaemonOptions& options,
             const RunDirectory& run,
             const sys::FileLock& held) {
    constexpr int lock_number = 3;
    std::vector<std::string> arguments{"--run-dir", run.path(), "--vmm", next.vmm};
    arguments.insert(arguments.end(), options.kept_arguments.begin(), options.kept_arguments.end());
    arguments.insert(arguments.end(), {"--lock-fd", std::to_string(lock_number)});
    return sys::become({.program = next.daemon,
                        .arguments = std::move(arguments),
                        .fds = {{.fd = &held.fd(), .number = lock_number}},
                        .standard_error = nullptr,
                        .new_session = false});
}

Status start_and_serve(DaemonOptions& options, const sys::EventFd& stop, sys::Fd& ready) {
    const RunDirectory run = GODWIT_TRY(RunDirectory::at(
        options.run_directory.empty() ? sys::default_run_path() : options.run_directory));
    GODWIT_TRY(run.prepare());
    // Some for each machine: the default of 1024 does not reach for as many as are allowed.
    if (const Status raised = sys::raise_descriptor_limit(); !raised.has_value()) {
        log::warn("descriptor_limit_stays", {{"reason", raised.error().to_string()}});
    }
    if (options.inherited_lock.valid()) {
        sys::reap_ended_children(); // Of the godwitd this process was before.
    }
    const std::unique_ptr<sys::EventLoop> loop = GODWIT_TRY(sys::EventLoop::create());
    // Kept to the end: the VMMs it has started are this process's children.
    std::unique_ptr<HostHeir> heir;
    std::optional<HostHeir::Inheritance> inheritance;
    if (options.join.valid()) {
        heir = GODWIT_TRY(HostHeir::join(*loop, run, options.vmm_program, std::move(options.join)));
        if (!GODWIT_TRY(heir->serve(stop))) {
            return ok();
        }
        inheritance = heir->take();
    }
    const sys::FileLock held = inheritance.has_value()
                                   ? std::move(inheritance->lock)
                                   : GODWIT_TRY(lock(run, std::move(options.inherited_lock)));
    Daemon::Replacement next;
    {
        Daemon daemon(options, run, *loop, held);
        if (inheritance.has_value()) {
            daemon.inherit(std::move(*inheritance));
        }
        GODWIT_TRY(daemon.serve(stop, ready));
        next = daemon.replacement();
    }
    if (next.daemon.empty()) {
        return ok();
    }
    Error failed = become(next, options, run, held);
    // The machines have gone on without us; the old program serves them as well.
    log::error("godwitd_not_replaced", {{"reason", failed.to_string()}});
    next.daemon = "/proc/self/exe";
    return become(next, options, run, held);
}

} // namespace

Status run_daemon(DaemonOptions options, const sys::EventFd& stop, sys::Fd ready) {
    Status ended = start_and_serve(options, stop, ready);
    if (!ended.has_value()) {
        tell(ready, {{"error", json_of(ended.error())}});
    }
    return ended;
}

} // namespace godwit::control
