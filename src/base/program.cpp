#include "base/program.h"

#include "base/version.h"

#include <cstdio>
#include <exception>

namespace godwit {

std::string version_text() {
    return std::string(version()) + " (build " + std::string(build_id()) + ")";
}

int run_program(const char* name, const std::function<int()>& body) noexcept {
    try {
        return body();
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s: %s\n", name, error.what());
        return 1;
    }
}

} // namespace godwit
