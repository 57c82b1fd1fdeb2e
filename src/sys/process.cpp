#include "sys/process.h"

#include "sys/spawn_child.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <ctime>

namespace godwit::sys {

std::string ExitStatus::to_string() const {
    if (!known) {
        return "an exit status only its parent was told";
    }
    return signalled ? "killed by signal " + std::to_string(code)
                     : "exit code " + std::to_string(code);
}

std::chrono::nanoseconds process_cpu_time() noexcept {
    timespec used{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return std::chrono::seconds(used.tv_sec) + std::chrono::nanoseconds(used.tv_nsec);
}

PageFaults page_faults() noexcept {
    rusage process{};
    rusage thread{};
    ::getrusage(RUSAGE_SELF, &process);
    ::getrusage(RUSAGE_THREAD, &thread);
    return {.process = static_cast<std::uint64_t>(process.ru_minflt),
            .thread = static_cast<std::uint64_t>(thread.ru_minflt)};
}

int host_pid() {
    char text[16] = {};
    const ssize_t n = ::readlink("/proc/self", text, sizeof(text) - 1);
    int pid = 0;
    const auto read = std::from_chars(text, text + std::max<ssize_t>(n, 0), pid);
    return n > 0 && read.ec == std::errc() ? pid : ::getpid();
}

int arrange_child(const SpawnOptions& options) noexcept {
    if (options.new_session) {
        ::setsid();
    }
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    if (options.standard_input != nullptr && ::dup2(options.standard_input->raw(), 0) < 0) {
        return errno;
    }
    if (options.standard_error != nullptr && (::dup2(options.standard_error->raw(), 1) < 0 ||
                                              ::dup2(options.standard_error->raw(), 2) < 0)) {
        return errno;
    }
    // First move every passed descriptor out of the way of the target numbers, then place them.
    constexpr int safe_base = 512;
    for (std::size_t i = 0; i < options.fds.size(); ++i) {
        if (::fcntl(options.fds[i].fd->raw(), F_DUPFD, safe_base + static_cast<int>(i)) !=
            safe_base + static_cast<int>(i)) {
            return EMFILE;
        }
    }
    for (std::size_t i = 0; i < options.fds.size(); ++i) {
        const int temporary = safe_base + static_cast<int>(i);
        if (::dup2(temporary, options.fds[i].number) < 0) {
            return errno;
        }
        ::close(temporary);
    }
    return 0;
}

ChildArguments::ChildArguments(const SpawnOptions& options) {
    texts_.reserve(options.arguments.size() + 1); // The pointers stay good.
    texts_.push_back(options.program);
    texts_.insert(texts_.end(), options.arguments.begin(), options.arguments.end());
    for (std::string& text : texts_) {
        pointers_.push_back(text.data());
    }
    pointers_.push_back(nullptr);
}

namespace {

/// Runs in the child between fork and exec: system calls only. Returns an errno if it comes back.
int enter_program(const SpawnOptions& options, char* const* argv) {
    if (const int failed = arrange_child(options); failed != 0) {
        return failed;
    }
    ::execv(options.program.c_str(), argv);
    return errno;
}

} // namespace

Error become(const SpawnOptions& options) {
    const ChildArguments arguments(options);
    const int reason = enter_program(options, arguments.argv());
    return Error::from_errno(reason, "become '" + options.program + "'");
}

void reap_ended_children() noexcept {
    while (::waitpid(-1, nullptr, WNOHANG) > 0) {
    }
}

Status raise_descriptor_limit() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return Error::from_errno(errno, "ask how many descriptors are allowed");
    }
    limit.rlim_cur = limit.rlim_max;
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return Error::from_errno(errno, "allow more descriptors");
    }
    return ok();
}

Result<Process> Process::spawn(const SpawnOptions& options) {
    const ChildArguments arguments(options);
    // The pipe closes on a successful exec; otherwise it carries the errno.
    int pipe_raw[2] = {-1, -1};
    if (::pipe2(pipe_raw, O_CLOEXEC) != 0) {
        return Error::from_errno(errno, "create a pipe");
    }
    const Fd read_end(pipe_raw[0]);
    Fd write_end(pipe_raw[1]);
    const pid_t pid = ::fork();
    if (pid < 0) {
        return Error::from_errno(errno, "fork");
    }
    if (pid == 0) {
        const int reason = enter_program(options, arguments.argv());
        [[maybe_unused]] const ssize_t n = ::write(write_end.raw(), &reason, sizeof(reason));
        ::_exit(127);
    }
    write_end.reset();
    int reason = 0;
    ssize_t n = 0;
    do {
        n = ::read(read_end.raw(), &reason, sizeof(reason));
    } while (n < 0 && errno == EINTR);
    if (n == static_cast<ssize_t>(sizeof(reason))) {
        ::waitpid(pid, nullptr, 0);
        return Error::from_errno(reason, "start '" + options.program + "'");
    }
    return adopt(pid);
}

Result<Process> Process::adopt(int pid) {
    const long raw = ::syscall(SYS_pidfd_open, pid, 0);
    if (raw < 0) {
        return Error::from_errno(errno == ESRCH ? ENOENT : errno,
                                 "look at process " + std::to_string(pid));
    }
    return Process(pid, Fd(static_cast<int>(raw)));
}

Status Process::signal(int number) const {
    if (::syscall(SYS_pidfd_send_signal, pidfd_.raw(), number, nullptr, 0) != 0) {
        return Error::from_errno(errno, "signal process " + std::to_string(pid_));
    }
    return ok();
}

Result<std::optional<ExitStatus>> Process::wait(std::chrono::milliseconds timeout) const {
    pollfd waiting{.fd = pidfd_.raw(), .events = POLLIN, .revents = 0};
    int ready = 0;
    do {
        ready = ::poll(&waiting, 1, static_cast<int>(timeout.count()));
    } while (ready < 0 && errno == EINTR);
    if (ready < 0) {
        return Error::from_errno(errno, "wait for process " + std::to_string(pid_));
    }
    if (ready == 0) {
        return std::optional<ExitStatus>();
    }
    siginfo_t info{};
    if (::waitid(P_PIDFD, static_cast<id_t>(pidfd_.raw()), &info, WEXITED) != 0) {
        // Not our child: it has ended, how is not ours to know.
        return std::optional(ExitStatus{.known = false});
    }
    return std::optional(
        ExitStatus{.signalled = info.si_code != CLD_EXITED, .code = info.si_status});
}

} // namespace godwit::sys
