/// The filter of a confined VMM: what it needs from its first instruction to its last, before and
/// after it has taken the machine, so that nothing has to be relaxed in between. What is not listed
/// is refused by the orchestrator. What the listed calls can reach is limited by other means: there
/// is no path to anything, and descriptors carry their own rights.

#include "control/service_partition.h"

#include <linux/sched.h>
#include <sys/socket.h>

#include <fmt/format.h>
#include <seccomp.h>

#include <cerrno>
#include <cstdlib>
#include <memory>

namespace godwit::control {

namespace {

// clang-format off
constexpr const char* allowed_calls[] = {
    // descriptors and files
    "read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2", "close",
    "close_range", "dup", "dup2", "dup3", "fcntl", "flock", "lseek", "fstat", "stat", "lstat", "newfstatat", "statx",
    "statfs", "fstatfs", "open", "openat", "openat2", "access", "faccessat", "faccessat2", "readlink", "readlinkat",
    "getdents64", "getcwd", "chdir", "fchdir", "chroot", "umask", "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat",
    "rename", "renameat", "renameat2", "chmod", "fchmod", "fchmodat", "ftruncate", "fallocate", "fsync", "fdatasync",
    "sync_file_range", "copy_file_range", "sendfile", "splice", "fadvise64", "ioctl", "pipe2",
    // memory
    "mmap", "mprotect", "munmap", "mremap", "madvise", "msync", "mincore", "brk", "memfd_create", "membarrier",
    // waiting
    "poll", "ppoll", "select", "pselect6", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2",
    "eventfd2", "timerfd_create", "timerfd_settime", "timerfd_gettime", "signalfd4", "io_uring_setup",
    "io_uring_enter", "io_uring_register", "futex", "futex_waitv", "nanosleep", "clock_nanosleep", "pause",
    "restart_syscall", "sched_yield",
    // sockets
    "socketpair", "bind", "listen", "accept4", "connect", "getsockopt", "setsockopt", "getsockname", "getpeername",
    "sendmsg", "recvmsg", "sendto", "recvfrom", "shutdown",
    // the process itself; its program is executed after the filter is there
    "execveat", "exit", "exit_group", "arch_prctl", "set_tid_address", "set_robust_list", "rseq", "prctl",
    "prlimit64", "getrlimit", "setrlimit", "getrusage", "times", "uname", "sysinfo", "getrandom", "getpid", "gettid",
    "getppid", "getuid", "geteuid", "getgid", "getegid", "getgroups", "setresuid", "setresgid", "capget",
    "sched_getaffinity", "sched_setaffinity", "sched_getparam", "sched_getscheduler", "getcpu", "clock_gettime",
    "clock_getres", "gettimeofday", "time",
    // signals: kill reaches only what is in the same process namespace, which is itself
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "rt_sigtimedwait", "rt_sigsuspend",
    "sigaltstack", "tgkill", "tkill", "kill",
#if defined(__SANITIZE_ADDRESS__)
    // the leak check at the end of a process
    "ptrace", "wait4", "process_vm_readv",
#endif
};
// clang-format on

class Filter {
  public:
    Filter() : context_(::seccomp_init(SCMP_ACT_NOTIFY)) {}
    Filter(const Filter&) = delete;
    Filter& operator=(const Filter&) = delete;
    ~Filter() {
        if (context_ != nullptr) {
            ::seccomp_release(context_);
        }
    }

    Status build() {
        if (context_ == nullptr) {
            return Error(ErrorCode::resource_exhausted, "make a filter of system calls");
        }
        for (const char* name : allowed_calls) {
            const int call = ::seccomp_syscall_resolve_name(name);
            if (call != __NR_SCMP_ERROR) {
                GODWIT_TRY(
                    check(::seccomp_rule_add_array(context_, SCMP_ACT_ALLOW, call, 0, nullptr)));
            }
        }
        // Threads, but no processes and no namespaces, which would give back capabilities. What
        // clone3 is asked for lies in memory: the C library then takes clone.
#if defined(__SANITIZE_ADDRESS__)
        constexpr std::uint64_t wanted = 0; // The leak check runs in a process.
#else
        constexpr std::uint64_t wanted = CLONE_THREAD;
#endif
        constexpr std::uint64_t looked_at = wanted | CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID |
                                            CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
                                            CLONE_NEWCGROUP;
        GODWIT_TRY(allow_if(SCMP_SYS(clone), SCMP_A0_64(SCMP_CMP_MASKED_EQ, looked_at, wanted)));
        GODWIT_TRY(check(::seccomp_rule_add_array(
            context_, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0, nullptr)));
        return allow_if(SCMP_SYS(socket), SCMP_A0_64(SCMP_CMP_EQ, AF_UNIX));
    }

    Result<std::vector<sock_filter>> bytes() {
        const sys::Fd file = GODWIT_TRY(sys::create_memfd("godwit-filter", 0));
        GODWIT_TRY(check(::seccomp_export_bpf(context_, file.raw())));
        std::vector<sock_filter> program(GODWIT_TRY(sys::file_size(file)) / sizeof(sock_filter));
        GODWIT_TRY(sys::pread_exact(file, std::as_writable_bytes(std::span(program)), 0));
        return program;
    }

  private:
    static Status check(int result) {
        return result == 0 ? ok()
                           : Status(Error::from_errno(-result, "make a filter of system calls"));
    }
    Status allow_if(int call, scmp_arg_cmp condition) {
        return check(::seccomp_rule_add_array(context_, SCMP_ACT_ALLOW, call, 1, &condition));
    }

    scmp_filter_ctx context_;
};

struct Free {
    void operator()(char* text) const noexcept { std::free(text); }
};

} // namespace

Result<std::vector<sock_filter>> vmm_filter() {
    Filter filter;
    GODWIT_TRY(filter.build());
    return filter.bytes();
}

std::string describe(const sys::Refusal& refusal) {
    if (refusal.call == sys::trespass_call) {
        const auto at = fmt::format("{:#x}", refusal.arguments[1]);
        switch (static_cast<sys::Trespass>(refusal.arguments[0])) {
        case sys::Trespass::memory_written:
            return "write to memory at " + at + " that may only be read";
        case sys::Trespass::memory_mapped:
            return "mmap of guest memory for writing at " + at;
        case sys::Trespass::memory_protected:
            return "mprotect of guest memory for writing at " + at;
        case sys::Trespass::memory_reopened:
            return "open of guest memory for writing";
        case sys::Trespass::file_opened:
            return "open of a disk";
        case sys::Trespass::memory_unknown:
            return "access to memory at " + at + " that is not there";
        }
        return "something it did not name";
    }
    const std::unique_ptr<char, Free> name(
        ::seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, refusal.call));
    return "system call " +
           (name == nullptr ? std::to_string(refusal.call) : std::string(name.get())) +
           fmt::format(" ({:#x}, {:#x})", refusal.arguments[0], refusal.arguments[1]);
}

} // namespace godwit::control
