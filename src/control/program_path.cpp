#include "control/program_path.h"

#include <unistd.h>

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

Result<std::string> vmm_program_at(const std::string& path) {
    const std::filesystem::path named(path);
    if (!named.is_absolute()) {
        return Error(ErrorCode::invalid_argument,
                     "request: /program is '" + path + "': must be an absolute path");
    }
    std::error_code error;
    std::filesystem::path program = named;
    if (std::filesystem::is_directory(named, error)) {
        program = named / "bin" / "godwit-vmm";
        if (!std::filesystem::exists(program, error)) {
            program = named / "godwit-vmm";
        }
    }
    if (::access(program.c_str(), X_OK) != 0) {
        return Error::from_errno(errno, "use '" + program.string() + "' as the new godwit-vmm");
    }
    return program.string();
}

std::string vmm_program_of(int pid) {
    std::error_code error;
    const std::filesystem::path program =
        std::filesystem::read_symlink("/proc/" + std::to_string(pid) + "/exe", error);
    // A file that was replaced or removed is named "... (deleted)", which nobody can execute.
    const bool usable = !error && program.filename().string().starts_with("godwit-vmm") &&
                        ::access(program.c_str(), X_OK) == 0;
    return usable ? program.string() : std::string();
}

Result<std::string> daemon_program_beside(const std::string& vmm_program) {
    const std::string program =
        (std::filesystem::path(vmm_program).parent_path() / "godwitd").string();
    if (::access(program.c_str(), X_OK) != 0) {
        return Error::from_errno(errno, "use '" + program + "' as the new godwitd");
    }
    return program;
}

} // namespace godwit::control
