/// Steps of the child, between clone and exec:
///
///   1 wait        until the parent has written our user and group mappings
///   2 view        an empty file system, what is shown bound into it, all of it read-only
///   3 root        it becomes the root, the host's files are detached
///   4 user        own ids; capabilities but the kept ones are gone, also for programs we execute
///   5 filter      no new privileges, then the filter: everything above needs calls it refuses
///   6 answer      the descriptor of the refusals goes to the parent
///
/// A failure ends the child before its program runs; the kernel takes the namespaces away with it.

#include "sys/confinement_child.h"

#include <linux/capability.h>
#include <linux/seccomp.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace godwit::sys {

namespace {

enum Step : std::int32_t {
    step_wait = 1,
    step_view,
    step_root,
    step_user,
    step_filter,
    step_answer
};

/// 0 or an errno.
using Outcome = int;

Outcome of(long result) noexcept {
    return result < 0 ? errno : 0;
}

Outcome wait_for_parent(const ConfinedPlan& plan) noexcept {
    char go = 0;
    ssize_t n = 0;
    do {
        n = ::read(plan.gate, &go, 1);
    } while (n < 0 && errno == EINTR);
    return n == 1 ? 0 : EPIPE;
}

Outcome bind(const ViewStep& step) noexcept {
    return of(::mount(step.target.c_str(), step.path.c_str(), nullptr, MS_BIND | MS_REC, nullptr));
}

/// The working directory is the new root.
Outcome make(const ViewStep& step) noexcept {
    switch (step.kind) {
    case ViewStep::Kind::directory:
        return of(::mkdir(step.path.c_str(), 0755));
    case ViewStep::Kind::link:
        return of(::symlink(step.target.c_str(), step.path.c_str()));
    case ViewStep::Kind::show_directory:
        if (::mkdir(step.path.c_str(), 0755) != 0) {
            return errno;
        }
        return bind(step);
    case ViewStep::Kind::show_file: {
        const int file = ::open(step.path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0444);
        if (file < 0) {
            return errno;
        }
        ::close(file);
        return bind(step);
    }
    }
    return EINVAL;
}

Outcome make_view(const ConfinedPlan& plan) noexcept {
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("confined", plan.base.c_str(), "tmpfs", MS_NOSUID, "size=64k,mode=755") != 0 ||
        ::chdir(plan.base.c_str()) != 0) {
        return errno;
    }
    for (const ViewStep& step : plan.view) {
        if (const Outcome failed = make(step); failed != 0) {
            return failed;
        }
    }
    mount_attr read_only{};
    read_only.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID;
    return of(::syscall(SYS_mount_setattr,
                        AT_FDCWD,
                        plan.base.c_str(),
                        AT_RECURSIVE,
                        &read_only,
                        sizeof(read_only)));
}

/// pivot_root(2), "pivot_root(".", ".")": the old root lies over the new one and is detached. An
/// initial RAM file system cannot be pivoted away: the new root is moved over it, and nothing below
/// can be reached any more.
Outcome enter_view() noexcept {
    if (::syscall(SYS_pivot_root, ".", ".") == 0) {
        return ::umount2(".", MNT_DETACH) != 0 || ::chdir("/") != 0 ? errno : 0;
    }
    if (errno != EINVAL) {
        return errno;
    }
    return ::mount(".", "/", nullptr, MS_MOVE, nullptr) != 0 || ::chroot(".") != 0 ||
                   ::chdir("/") != 0
               ? errno
               : 0;
}

Outcome set_capabilities(std::uint64_t kept) noexcept {
    __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3]{};
    for (std::size_t i = 0; i < _LINUX_CAPABILITY_U32S_3; ++i) {
        const auto word = static_cast<std::uint32_t>(kept >> (32 * i));
        data[i] = {.effective = word, .permitted = word, .inheritable = word};
    }
    return of(::syscall(SYS_capset, &header, data));
}

Outcome become_user(const ConfinedPlan& plan) noexcept {
    for (unsigned long capability = 0; capability < 64; ++capability) {
        if ((plan.capabilities >> capability & 1U) == 0 &&
            ::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 && errno != EINVAL) {
            return errno;
        }
    }
    // The raw calls: the C library's would look for threads that are not here.
    if (plan.changes_user &&
        (::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0 || ::syscall(SYS_setgroups, 0, nullptr) != 0 ||
         ::syscall(SYS_setresgid, plan.gid, plan.gid, plan.gid) != 0 ||
         ::syscall(SYS_setresuid, plan.uid, plan.uid, plan.uid) != 0)) {
        return errno;
    }
    if (const Outcome failed = set_capabilities(plan.capabilities); failed != 0) {
        return failed;
    }
    for (unsigned long capability = 0; capability < 64; ++capability) {
        if ((plan.capabilities >> capability & 1U) != 0 &&
            ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) != 0) {
            return errno;
        }
    }
    return 0;
}

/// The listener's descriptor, or a negative errno.
int install_filter(const ConfinedPlan& plan) noexcept {
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        return -errno;
    }
    sock_fprog program{};
    program.len = static_cast<unsigned short>(plan.filter.size());
    program.filter = const_cast<sock_filter*>(plan.filter.data());
    // Without SPEC_ALLOW kernels before 5.16 would slow the process down by other means as well.
    const long listener =
        ::syscall(SYS_seccomp,
                  SECCOMP_SET_MODE_FILTER,
                  SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                  &program);
    return listener < 0 ? -errno : static_cast<int>(listener);
}

Outcome answer_done(int gate, int listener) noexcept {
    ConfinedAnswer answer{};
    iovec piece{.iov_base = &answer, .iov_len = sizeof(answer)};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &listener, sizeof(listener));
    return of(::sendmsg(gate, &message, MSG_NOSIGNAL));
}

} // namespace

const char* confinement_step_name(std::int32_t step) noexcept {
    switch (step) {
    case step_wait:
        return "map its users";
    case step_view:
        return "put its file system together";
    case step_root:
        return "enter its file system";
    case step_user:
        return "give up users and capabilities";
    case step_filter:
        return "install its filter of system calls";
    case step_answer:
        return "hand over its refused calls";
    default:
        return "start";
    }
}

void answer_failure(int gate, std::int32_t step, int os_errno) noexcept {
    const ConfinedAnswer answer{.step = step, .os_errno = os_errno};
    [[maybe_unused]] const ssize_t n = ::send(gate, &answer, sizeof(answer), MSG_NOSIGNAL);
}

bool confine_this_process(const ConfinedPlan& plan) noexcept {
    const auto did = [&plan](std::int32_t step, Outcome outcome) {
        if (outcome != 0) {
            answer_failure(plan.gate, step, outcome);
        }
        return outcome == 0;
    };
    if (!did(step_wait, wait_for_parent(plan)) || !did(step_view, make_view(plan)) ||
        !did(step_root, enter_view()) || !did(step_user, become_user(plan))) {
        return false;
    }
    const int listener = install_filter(plan);
    if (listener < 0) {
        return did(step_filter, -listener);
    }
    const Outcome answered = answer_done(plan.gate, listener);
    ::close(listener);
    return did(step_answer, answered);
}

} // namespace godwit::sys
