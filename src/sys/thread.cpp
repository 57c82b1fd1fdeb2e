#include "sys/thread.h"

#include <pthread.h>

#include <csignal>

namespace godwit::sys {

std::jthread start_thread(const std::string& name, std::move_only_function<void()> body) {
    return std::jthread(
        [short_name = name.substr(0, 15), run = std::move(body)]() mutable noexcept {
            sigset_t blocked;
            sigfillset(&blocked);
            for (const int fault : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP}) {
                sigdelset(&blocked, fault);
            }
            pthread_sigmask(SIG_BLOCK, &blocked, nullptr);
            pthread_setname_np(pthread_self(), short_name.c_str());
            run();
        });
}

} // namespace godwit::sys
