#pragma once

/// Where Godwit's other programs are. Any thread.

#include "base/result.h"

#include <string>

namespace godwit::control {

/// The value of the environment variable `variable` if it is set, else the file `name` in the
/// directory of the running executable.
[[nodiscard]] std::string program_path(const char* variable, const std::string& name);

/// The godwit-vmm meant by `path`, absolute: the program itself, or the prefix of an installation
/// ("PREFIX/bin/godwit-vmm", else "PREFIX/godwit-vmm"). It can be executed.
[[nodiscard]] Result<std::string> vmm_program_at(const std::string& path);

/// The file of the godwit-vmm that runs as process `pid`; empty if it is no more, or if the process
/// is another program (a keeper, a script).
[[nodiscard]] std::string vmm_program_of(int pid);

/// The godwitd of the same installation: beside that godwit-vmm.
[[nodiscard]] Result<std::string> daemon_program_beside(const std::string& vmm_program);

} // namespace godwit::control
