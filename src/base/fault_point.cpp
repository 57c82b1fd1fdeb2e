#include "base/fault_point.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
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

std::string_view fault_action(std::string_view name) noexcept {
    const std::string& wanted = wanted_fault();
    if (wanted.empty() || !wanted.starts_with(name) || wanted.size() <= name.size() ||
        wanted[name.size()] != ':') {
        return {};
    }
    return std::string_view(wanted).substr(name.size() + 1);
}

namespace {

/// For the test that asked for it: a line in the log, written without anything that could wait.
void tell_reached(std::string_view name) noexcept {
    std::array<char, 160> line{};
    const int bytes = std::snprintf(line.data(),
                                    line.size(),
                                    "{\"event\":\"fault_point_reached\",\"point\":\"%.*s\"}\n",
                                    static_cast<int>(std::min<std::size_t>(name.size(), 80)),
                                    name.data());
    if (bytes > 0) {
        [[maybe_unused]] const ssize_t written =
            ::write(STDERR_FILENO, line.data(), static_cast<std::size_t>(bytes));
    }
}

} // namespace

void fault_point(std::string_view name) noexcept {
    const std::string_view action = fault_action(name);
    if (action == "kill" || action == "abort" || action == "hang") {
        tell_reached(name);
    }
    if (action == "kill") {
        ::kill(::getpid(), SIGKILL);
        // The first process of a process namespace does not die by a signal of its own.
        ::_exit(128 + SIGKILL);
    } else if (action == "abort") {
        std::abort();
    } else if (action == "hang") {
        for (;;) {
            ::pause();
        }
    }
}

} // namespace godwit
