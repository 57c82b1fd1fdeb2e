#pragma once

/// Where Godwit's other programs are. Any thread.

#include <string>

namespace godwit::control {

/// The value of the environment variable `variable` if it is set, else the file `name` in the
/// directory of the running executable.
[[nodiscard]] std::string program_path(const char* variable, const std::string& name);

} // namespace godwit::control
