#include "sys/refusal.h"

#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <vector>

namespace godwit::sys {

namespace {

/// The kernel's structures may be larger than the ones we know (seccomp_unotify(2)).
Result<seccomp_notif_sizes> notification_sizes() {
    seccomp_notif_sizes sizes{};
    if (::syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) != 0) {
        return Error::from_errno(errno, "ask for the size of a refused call");
    }
    sizes.seccomp_notif =
        std::max(sizes.seccomp_notif, static_cast<std::uint16_t>(sizeof(seccomp_notif)));
    sizes.seccomp_notif_resp =
        std::max(sizes.seccomp_notif_resp, static_cast<std::uint16_t>(sizeof(seccomp_notif_resp)));
    return sizes;
}

Status refuse(const Fd& refusals, std::uint64_t id, std::size_t bytes) {
    std::vector<std::byte> buffer(bytes);
    const seccomp_notif_resp answer{.id = id, .val = 0, .error = -EPERM, .flags = 0};
    std::memcpy(buffer.data(), &answer, sizeof(answer));
    // ENOENT: it has been killed meanwhile.
    if (::ioctl(refusals.raw(), SECCOMP_IOCTL_NOTIF_SEND, buffer.data()) != 0 && errno != ENOENT) {
        return Error::from_errno(errno, "refuse a call");
    }
    return ok();
}

} // namespace

Result<std::optional<Refusal>> next_refusal(const Fd& refusals) {
    pollfd waiting{.fd = refusals.raw(), .events = POLLIN, .revents = 0};
    if (::poll(&waiting, 1, 0) <= 0 || (waiting.revents & POLLIN) == 0) {
        return std::optional<Refusal>();
    }
    const seccomp_notif_sizes sizes = GODWIT_TRY(notification_sizes());
    std::vector<std::byte> buffer(sizes.seccomp_notif);
    if (::ioctl(refusals.raw(), SECCOMP_IOCTL_NOTIF_RECV, buffer.data()) != 0) {
        if (errno == ENOENT || errno == EINTR) {
            return std::optional<Refusal>();
        }
        return Error::from_errno(errno, "take a refused call");
    }
    seccomp_notif taken{};
    std::memcpy(&taken, buffer.data(), sizeof(taken));
    GODWIT_TRY(refuse(refusals, taken.id, sizes.seccomp_notif_resp));
    Refusal refusal{.call = taken.data.nr};
    std::memcpy(refusal.arguments.data(), taken.data.args, sizeof(taken.data.args));
    return std::optional(refusal);
}

void note_trespass(Trespass what, std::uint64_t address) noexcept {
    const int before = errno;
    ::syscall(trespass_call, static_cast<std::uint64_t>(what), address);
    errno = before;
}

namespace {

[[maybe_unused]] void note_fault(int number, siginfo_t* info, void*) {
    const auto what =
        info->si_code == SEGV_ACCERR ? Trespass::memory_written : Trespass::memory_unknown;
    note_trespass(what, reinterpret_cast<std::uintptr_t>(info->si_addr));
    // Back to what the signal does by itself: the instruction faults again and ends the process.
    std::signal(number, SIG_DFL);
}

} // namespace

void note_faults() noexcept {
#if !defined(__SANITIZE_ADDRESS__) // It has handlers of its own, which say more.
    struct sigaction action{};
    action.sa_sigaction = note_fault;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    ::sigaction(SIGSEGV, &action, nullptr);
    ::sigaction(SIGBUS, &action, nullptr);
#endif
}

} // namespace godwit::sys
