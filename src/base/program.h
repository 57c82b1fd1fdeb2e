#pragma once

/// What every program of ours does around its own work.

#include <functional>
#include <string>

namespace godwit {

/// "0.1.0 (build 0123...)", for people.
[[nodiscard]] std::string version_text();

/// Runs a program's body and gives its exit code. An exception, which only a library throws and
/// only when memory ends, is told on standard error and gives 1. Called once, by main().
[[nodiscard]] int run_program(const char* name, const std::function<int()>& body) noexcept;

} // namespace godwit
