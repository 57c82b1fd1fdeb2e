#include "base/fault_point.h"

#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <string>

namespace godwit {

namespace {

const std::string& wanted_fault() {
    // Read once; nothing in this process changes the environment.
    static const std::string wanted = [] {
        const char* text = std::getenv("GODWIT_FAULT"); // NOLINT(concurrency-mt-unsafe)
        return std::string(text == nullptr ? "" : text);
    }();
    return wanted;
}

} // namespace

void fault_point(std::string_view name) noexcept {
    const std::string& wanted = wanted_fault();
    if (wanted.empty() || !wanted.starts_with(name) || wanted.size() <= name.size() ||
        wanted[name.size()] != ':') {
        return;
    }
    const std::string_view action = std::string_view(wanted).substr(name.size() + 1);
    if (action == "kill") {
        ::kill(::getpid(), SIGKILL);
    } else if (action == "abort") {
        std::abort();
    } else if (action == "hang") {
        for (;;) {
            ::pause();
        }
    }
}

} // namespace godwit
