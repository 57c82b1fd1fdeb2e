#pragma once

/// Named places where a test may make this process die or hang, to prove that the other side copes.
///
/// The environment variable GODWIT_FAULT holds "NAME:kill", "NAME:hang" or "NAME:abort", read once
/// at the first point reached; without it a point costs one comparison. NAME is the text at the
/// point. Where it does something, it says so on standard error first, so that a test can tell that
/// the point was reached.

#include <string_view>

namespace godwit {

/// What the environment asks for at this name; empty if nothing. For faults other than an end.
[[nodiscard]] std::string_view fault_action(std::string_view name) noexcept;

/// Dies by SIGKILL, stops for ever or aborts here if the environment asks for this name.
void fault_point(std::string_view name) noexcept;

} // namespace godwit
