#include "control/program_path.h"

#include <cstdlib>
#include <filesystem>

namespace godwit::control {

std::string program_path(const char* variable, const std::string& name) {
    // NOLINTNEXTLINE(concurrency-mt-unsafe): nobody writes the environment.
    const char* const chosen = std::getenv(variable);
    if (chosen != nullptr && *chosen != '\0') {
        return chosen;
    }
    std::error_code error;
    const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
    return error ? name : (self.parent_path() / name).string();
}

} // namespace godwit::control
