#include "sys/confinement.h"

#include "sys/confinement_child.h"
#include "sys/spawn_child.h"

#include <linux/capability.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <sstream>

namespace godwit::sys {

namespace {

constexpr unsigned long namespaces =
    CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC;
constexpr std::chrono::milliseconds answer_time_max{5'000};
/// What a process may take to be gone after SIGKILL; one that hangs in the kernel is left behind.
constexpr std::chrono::milliseconds kill_time_max{1'000};
/// Out of the way of the numbers a child is promised.
constexpr int high_number = 700;
constexpr std::uint64_t map_bytes_max = 64ULL << 10U;

constexpr std::uint64_t bit(unsigned capability) {
    return std::uint64_t{1} << capability;
}

/// To leave by a root directory it is given; root also opens what root may open, and becomes itself
/// again. All of it counts in its own user namespace and before it leaves there is nothing to use
/// it on.
std::uint64_t kept_capabilities() {
    const std::uint64_t leave = bit(CAP_SYS_CHROOT);
    return ::geteuid() != 0 ? leave
                            : leave | bit(CAP_DAC_OVERRIDE) | bit(CAP_FOWNER) | bit(CAP_SETUID) |
                                  bit(CAP_SETGID);
}

Result<Fd> at_high_number(const Fd& fd) {
    const int copy = ::fcntl(fd.raw(), F_DUPFD_CLOEXEC, high_number);
    if (copy < 0) {
        return Error::from_errno(errno, "duplicate a descriptor");
    }
    return Fd(copy);
}

/// Makes the directories above `path` that no step has made.
void add_parents(const std::filesystem::path& path, std::vector<ViewStep>& steps) {
    std::filesystem::path above;
    for (const auto& part : path.parent_path()) {
        above /= part;
        const bool there = std::ranges::any_of(
            steps, [&](const ViewStep& step) { return step.path == above.string(); });
        if (!there) {
            steps.push_back(
                {.kind = ViewStep::Kind::directory, .path = above.string(), .target = {}});
        }
    }
}

Result<std::vector<ViewStep>> plan_view(const std::vector<std::string>& visible) {
    std::vector<ViewStep> steps;
    for (const std::string& path : visible) {
        if (!path.starts_with('/') || path.size() < 2) {
            return Error(ErrorCode::invalid_argument, "'" + path + "' is no absolute path to show");
        }
        std::error_code error;
        const auto found = std::filesystem::symlink_status(path, error);
        if (error) {
            continue;
        }
        const std::string inside = path.substr(1);
        add_parents(inside, steps);
        if (found.type() == std::filesystem::file_type::symlink) {
            const auto text = std::filesystem::read_symlink(path, error);
            steps.push_back(
                {.kind = ViewStep::Kind::link, .path = inside, .target = text.string()});
        } else {
            steps.push_back({.kind = found.type() == std::filesystem::file_type::directory
                                         ? ViewStep::Kind::show_directory
                                         : ViewStep::Kind::show_file,
                             .path = inside,
                             .target = path});
        }
    }
    return steps;
}

/// A directory of the host that nothing shown lies below.
Result<std::string> place_for_view() {
    for (const char* place : {"/tmp", "/run", "/mnt"}) {
        std::error_code error;
        if (std::filesystem::is_directory(place, error) &&
            !std::filesystem::is_symlink(place, error)) {
            return std::string(place);
        }
    }
    return Error(ErrorCode::unsupported, "the host has no directory to put a file system together");
}

/// The ids we have, under the same numbers: root's all, anyone else's only the own one
/// (user_namespaces(7)).
Result<std::string> identity_map(const char* own_map, unsigned id) {
    if (::geteuid() != 0) {
        return std::to_string(id) + " " + std::to_string(id) + " 1\n";
    }
    std::istringstream own(GODWIT_TRY(read_file(own_map, map_bytes_max)));
    std::string text;
    std::uint64_t inside = 0;
    std::uint64_t outside = 0;
    std::uint64_t count = 0;
    while (own >> inside >> outside >> count) {
        text += std::to_string(inside) + " " + std::to_string(inside) + " " +
                std::to_string(count) + "\n";
    }
    return text;
}

Status write_map(int pid, const char* file, const std::string& text) {
    const Fd fd = GODWIT_TRY(open("/proc/" + std::to_string(pid) + "/" + file, O_WRONLY));
    return write_all(fd, std::as_bytes(std::span(text)));
}

Status map_users(int pid) {
    if (::geteuid() != 0) {
        GODWIT_TRY(write_map(pid, "setgroups", "deny"));
    }
    GODWIT_TRY(
        write_map(pid, "uid_map", GODWIT_TRY(identity_map("/proc/self/uid_map", ::geteuid()))));
    return write_map(pid, "gid_map", GODWIT_TRY(identity_map("/proc/self/gid_map", ::getegid())));
}

struct Ends {
    Fd ours;
    Fd theirs;
};

Result<Ends> make_gate() {
    int raw[2] = {-1, -1};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, raw) != 0) {
        return Error::from_errno(errno, "create a socket pair");
    }
    Fd ours(raw[0]);
    const Fd theirs(raw[1]);
    return Ends{.ours = std::move(ours), .theirs = GODWIT_TRY(at_high_number(theirs))};
}

struct Answer {
    ConfinedAnswer text;
    std::size_t bytes = 0;
    Fd fd;
};

/// What the child has said, or that it is gone; timeout if it is silent for too long: it mounts
/// what others serve, and nobody waits for them for ever.
Result<Answer> receive_answer(const Fd& gate) {
    pollfd waiting{.fd = gate.raw(), .events = POLLIN, .revents = 0};
    int ready = 0;
    do {
        ready = ::poll(&waiting, 1, static_cast<int>(answer_time_max.count()));
    } while (ready < 0 && errno == EINTR);
    if (ready <= 0) {
        return Error(ErrorCode::timeout,
                     "the confined process did not get ready within " +
                         std::to_string(answer_time_max.count()) + " ms");
    }
    Answer answer;
    iovec piece{.iov_base = &answer.text, .iov_len = sizeof(answer.text)};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    ssize_t n = 0;
    do {
        n = ::recvmsg(gate.raw(), &message, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    answer.bytes = n > 0 ? static_cast<std::size_t>(n) : 0;
    const cmsghdr* const header = CMSG_FIRSTHDR(&message);
    if (answer.bytes != 0 && header != nullptr && header->cmsg_type == SCM_RIGHTS) {
        int raw = -1;
        std::memcpy(&raw, CMSG_DATA(header), sizeof(raw));
        answer.fd = Fd(raw);
    }
    return answer;
}

Error refused(std::string_view step, int os_errno) {
    const Error why = Error::from_errno(os_errno, std::string(step));
    return Error(ErrorCode::unsupported,
                 "this host does not let a process be confined: " + why.to_string());
}

/// The child's answers, until its program runs: the descriptor of the refusals.
Result<Fd> follow(const Fd& gate, const SpawnOptions& options) {
    const std::byte go{1};
    GODWIT_TRY(write_all(gate, std::span(&go, 1)));
    Answer first = GODWIT_TRY(receive_answer(gate));
    if (first.bytes != sizeof(ConfinedAnswer)) {
        return refused("start", ECHILD);
    }
    if (first.text.step == 0) {
        const Answer second = GODWIT_TRY(receive_answer(gate));
        if (second.bytes == 0) {
            return std::move(first.fd);
        }
        return Error::from_errno(second.text.os_errno,
                                 "start '" + options.program +
                                     "', which must be a program that finds its loader among what "
                                     "a confined process sees, not a script");
    }
    return refused(confinement_step_name(first.text.step), first.text.os_errno);
}

struct Child {
    const SpawnOptions& options;
    const ConfinedPlan& plan;
    const Fd& program;
    char* const* argv;
};

/// Does not return.
void run_child(const Child& child) noexcept {
    if (const int failed = arrange_child(child.options); failed != 0) {
        answer_failure(child.plan.gate, step_program, failed);
    } else if (confine_this_process(child.plan)) {
        ::syscall(SYS_execveat, child.program.raw(), "", child.argv, ::environ, AT_EMPTY_PATH);
        answer_failure(child.plan.gate, step_program, errno);
    }
    ::_exit(127);
}

} // namespace

Result<ConfinedProcess> spawn_confined(const SpawnOptions& options,
                                       const Confinement& confinement) {
    Ends gate = GODWIT_TRY(make_gate());
    const ConfinedPlan plan{.view = GODWIT_TRY(plan_view(confinement.visible)),
                            .base = GODWIT_TRY(place_for_view()),
                            .uid = confinement.uid,
                            .gid = confinement.gid,
                            .changes_user = confinement.uid != ::geteuid(),
                            .capabilities = kept_capabilities(),
                            .filter = confinement.filter,
                            .gate = gate.theirs.raw()};
    const Fd program = GODWIT_TRY(at_high_number(GODWIT_TRY(open(options.program, O_PATH))));
    const ChildArguments arguments(options);
    const Child child{
        .options = options, .plan = plan, .program = program, .argv = arguments.argv()};
    // Like fork(2), but into new namespaces.
    const auto pid = static_cast<pid_t>(
        ::syscall(SYS_clone, namespaces | SIGCHLD, nullptr, nullptr, nullptr, 0));
    if (pid < 0) {
        return refused("create its namespaces", errno);
    }
    if (pid == 0) {
        run_child(child);
    }
    gate.theirs.reset();
    Result<Process> process = Process::adopt(pid);
    if (!process.has_value()) {
        ::kill(pid, SIGKILL); // It waits for our word and has done nothing yet.
        ::waitpid(pid, nullptr, 0);
        return std::move(process.error());
    }
    Status mapped = map_users(pid);
    Result<Fd> refusals =
        mapped.has_value()
            ? follow(gate.ours, options)
            : Result<Fd>(refused(mapped.error().to_string(), mapped.error().os_errno()));
    if (!refusals.has_value()) {
        discard(process->signal(SIGKILL), "it may still wait for us");
        discard(process->wait(kill_time_max), "its end is not what has failed");
        return std::move(refusals.error());
    }
    return ConfinedProcess{.process = std::move(*process), .refusals = std::move(*refusals)};
}

Status leave_confinement(const Fd& root, Home home) {
    // The file system is shared by all threads, and the C library changes the ids of all of them.
    if (::fchdir(root.raw()) != 0 || ::chroot(".") != 0) {
        return Error::from_errno(errno, "enter the host's file system");
    }
    if (::geteuid() != home.uid && (::setresgid(home.gid, home.gid, home.gid) != 0 ||
                                    ::setresuid(home.uid, home.uid, home.uid) != 0)) {
        return Error::from_errno(errno, "take the user id of the host's daemon");
    }
    // A change of ids makes a process unreadable for its own user, in /proc and for core dumps.
    if (::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0) {
        return Error::from_errno(errno, "stay readable");
    }
    return ok();
}

} // namespace godwit::sys
