/// godwitd: the host's daemon. `godwit` starts one by itself when none runs; a system service runs
/// it in the foreground.

#include "base/log.h"
#include "base/program.h"
#include "control/daemon.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <optional>
#include <string_view>

namespace {

std::optional<godwit::sys::EventFd> stop_request; // For the signal handler.

void request_stop(int) {
    stop_request->signal();
}

void handle_signals() {
    struct sigaction action{};
    action.sa_handler = request_stop;
    ::sigaction(SIGTERM, &action, nullptr);
    ::sigaction(SIGINT, &action, nullptr);
    action.sa_handler = SIG_IGN;
    ::sigaction(SIGPIPE, &action, nullptr);
    ::sigaction(SIGHUP, &action, nullptr);
}

/// A duplicate that programs started by this one do not get (what was inherited is not
/// close-on-exec); nothing for -1.
godwit::Result<godwit::sys::Fd> own(int number) {
    if (number < 0) {
        return godwit::sys::Fd();
    }
    const godwit::sys::Fd inherited(number);
    return inherited.duplicate();
}

/// What the user has asked for, for the godwitd that replaces this one. Flags nobody gave are left
/// out: an older one need not know them.
std::vector<std::string> kept(const CLI::App& app) {
    std::vector<std::string> arguments;
    for (const char* flag : {"--exit-when-idle", "--service-partition", "--log-level", "--pool"}) {
        if (app.count(flag) > 0) {
            arguments.emplace_back(flag);
            arguments.push_back(app[flag]->as<std::string>());
        }
    }
    return arguments;
}

/// Descriptors this process was given, by number; -1: not given.
struct Inherited {
    int ready = -1;
    int lock = -1;
    int join = -1;
};

constexpr int parsed = -1;
constexpr int check_failed = 3;

/// An exit code if that is all there is to do.
int parse(CLI::App& app, int argc, char** argv) {
    CLI11_PARSE(app, argc, argv);
    return parsed;
}

bool check_asked(int argc, char** argv) {
    return std::any_of(
        argv, argv + argc, [](const char* word) { return std::string_view(word) == "--check"; });
}

godwit::Status serve(godwit::control::DaemonOptions options, const Inherited& inherited) {
    stop_request.emplace(GODWIT_TRY(godwit::sys::EventFd::create()));
    handle_signals();
    godwit::sys::Fd ready;
    ready = GODWIT_TRY(own(inherited.ready));
    options.inherited_lock = GODWIT_TRY(own(inherited.lock));
    options.join = GODWIT_TRY(own(inherited.join));
    return godwit::control::run_daemon(std::move(options), *stop_request, std::move(ready));
}

int run(int argc, char** argv) {
    godwit::control::DaemonOptions options;
    std::int64_t idle_seconds = 0;
    Inherited inherited;
    std::string level = "info";
    std::string partition = "prefer";
    CLI::App app(
        "The host daemon of Godwit: supervises the virtual machines of this host and serves the "
        "API. Runs in the foreground until SIGTERM; machines run on without it.",
        "godwitd");
    app.set_version_flag("--version", godwit::version_text());
    app.add_option("--run-dir",
                   options.run_directory,
                   "Run directory (default: GODWIT_RUN_DIR, or one per user)");
    app.add_option("--vmm", options.vmm_program, "The godwit-vmm to start machines with");
    app.add_option("--exit-when-idle",
                   idle_seconds,
                   "End after so many seconds without machines and requests; 0: never")
        ->check(CLI::Range(0, 86'400));
    app.add_option("--service-partition",
                   partition,
                   "Whether a new VMM waits in namespaces of its own until it has taken the "
                   "machine: require, prefer (where the host lets it) or off")
        ->envname("GODWIT_SERVICE_PARTITION");
    app.add_option(
        "--ready-fd", inherited.ready, "Descriptor told in one JSON line when the API is up");
    app.add_option("--lock-fd",
                   inherited.lock,
                   "The run directory's lock, from the godwitd that became this one");
    app.add_option("--join-fd",
                   inherited.join,
                   "Socket to the godwitd this one takes a divided host over from");
    app.add_option("--log-level", level, "debug, info, warn or error");
    app.add_option("--pool",
                   options.pool_bytes,
                   "Size of the host's memory pool for machines with --memory SIZE,pool, like 64G; "
                   "0: none (default: all memory of the host, when it is first wanted)")
        ->type_name("SIZE")
        ->transform(CLI::AsSizeValue(false));
    bool foreground = true;
    app.add_flag("--foreground", foreground, "Stay in the foreground; it always does");
    bool check = false;
    app.add_flag("--check", check, "Only say whether all of this can be understood; do nothing");
    if (const int code = parse(app, argc, argv); code != parsed) {
        // Not to be taken for that of a godwitd which does not know the flag.
        return code != 0 && check_asked(argc, argv) ? check_failed : code;
    }

    const auto policy = godwit::control::partition_policy_named(partition);
    if (!policy.has_value()) {
        std::fprintf(stderr, "godwitd: %s\n", policy.error().to_string().c_str());
        return 2;
    }
    if (check) {
        return 0;
    }
    options.partition = *policy;
    options.exit_when_idle = std::chrono::seconds(idle_seconds);
    options.kept_arguments = kept(app);
    godwit::log::configure("godwitd", godwit::log::level_named(level));
    const godwit::Status ended = serve(std::move(options), inherited);
    if (!ended.has_value()) {
        std::fprintf(stderr, "godwitd: %s\n", ended.error().to_string().c_str());
        return 1;
    }
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    return godwit::run_program("godwitd", [&] { return run(argc, argv); });
}
