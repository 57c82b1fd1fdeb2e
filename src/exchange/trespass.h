#pragma once

/// What a successor must not be able to do before it is granted its rights, tried on purpose
/// (requirement HR-2). A fault point of tests: nobody asks for it otherwise.

#include "base/result.h"
#include "machine/machine.h"

#include <string_view>

namespace godwit::exchange {

/// Tries "write" (to guest memory), "map", "protect" or "reopen" (it for writing), "disk" (open
/// one) or "mount" (any call outside of the filter), in a machine without rights, and tells the
/// orchestrator. Always ends in an error that says what became of it, except that a write ends the
/// process; nothing happens for an empty `what`.
[[nodiscard]] Status trespass(std::string_view what, machine::Machine& machine);

} // namespace godwit::exchange
