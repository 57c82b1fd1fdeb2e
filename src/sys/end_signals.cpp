#include "sys/end_signals.h"

#include <sys/epoll.h>
#include <sys/signalfd.h>

#include <pthread.h>
#include <unistd.h>

#include <csignal>
#include <utility>

namespace godwit::sys {

Result<std::unique_ptr<EndSignals>> EndSignals::watch(EventLoop& loop,
                                                      std::function<void(int signal)> asked) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    if (::pthread_sigmask(SIG_BLOCK, &signals, nullptr) != 0) {
        return Error(ErrorCode::internal, "block signals");
    }
    Fd fd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!fd.valid()) {
        return Error::from_errno(errno, "watch signals");
    }
    std::unique_ptr<EndSignals> made(new EndSignals(std::move(fd)));
    made->handle_ = GODWIT_TRY(loop.watch(
        made->fd_, EPOLLIN, [raw = made->fd_.raw(), asked = std::move(asked)](std::uint32_t) {
            signalfd_siginfo info{};
            if (::read(raw, &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
                asked(static_cast<int>(info.ssi_signo));
            }
        }));
    return made;
}

} // namespace godwit::sys
