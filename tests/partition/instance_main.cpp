// One process of the partition test. Two builds of it exist, so that old and new are not one
// binary.

#include "roles.h"

#include <sys/prctl.h>

#include <unistd.h>

#include <charconv>
#include <csignal>
#include <cstdio>
#include <string_view>

namespace {

std::uint32_t number(std::string_view text) {
    std::uint32_t value = 0;
    std::from_chars(text.data(), text.data() + text.size(), value);
    return value;
}

godwit::Status run(const std::vector<std::string>& arguments) {
    using namespace godwit::partition_test;
    const std::string role = arguments.empty() ? "" : arguments[0];
    if (role == "old" && arguments.size() == 2) {
        return run_old(arguments[1]);
    }
    if (role == "new" && arguments.size() == 2) {
        return run_new(static_cast<std::int32_t>(number(arguments[1])));
    }
    // Processes of a program die with the instance that started them, and do not begin without it.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (arguments.size() != 5 || number(arguments[4]) != static_cast<std::uint32_t>(::getppid())) {
        return godwit::Error(godwit::ErrorCode::invalid_argument, "no such role, or no instance");
    }
    if (role == "writer") {
        return run_writer(number(arguments[1]), number(arguments[2]), arguments[3]);
    }
    if (role == "auditor") {
        return run_auditor(number(arguments[1]), arguments[3]);
    }
    return godwit::Error(godwit::ErrorCode::invalid_argument, "no such role: " + role);
}

} // namespace

int main(int argc, char** argv) {
    const godwit::Status done = run({argv + 1, argv + argc});
    if (!done.has_value()) {
        std::fprintf(stderr,
                     "%s %s: %s\n",
                     GODWIT_PARTITION_BUILD,
                     argc > 1 ? argv[1] : "",
                     done.error().to_string().c_str());
        return 1;
    }
    return 0;
}
