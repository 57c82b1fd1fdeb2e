#include "kvm/vcpu_kick.h"

#include <cerrno>
#include <csignal>

namespace godwit::kvm {

namespace {
int kick_signal() noexcept {
    return SIGRTMIN + 4;
}
void ignore(int) {}
} // namespace

Status accept_kicks() {
    // Set again by every thread: the same handler, so the order does not matter.
    struct sigaction action{};
    action.sa_handler = ignore;
    sigemptyset(&action.sa_mask);
    if (::sigaction(kick_signal(), &action, nullptr) != 0) {
        return Error::from_errno(errno, "install the vCPU signal handler");
    }
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, kick_signal());
    const int failure = ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
    if (failure != 0) {
        return Error::from_errno(failure, "let the vCPU signal in");
    }
    return ok();
}

void kick(pthread_t thread) noexcept {
    ::pthread_kill(thread, kick_signal());
}

} // namespace godwit::kvm
