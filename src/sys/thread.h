#pragma once

/// Threads with names that show in ps and top. Joined when destroyed.

#include <functional>
#include <string>
#include <thread>

namespace godwit::sys {

/// Starts a thread called `name` (15 characters are kept) that runs `body`, which must not throw.
/// All signals but those that report faults are blocked in it.
[[nodiscard]] std::jthread start_thread(const std::string& name,
                                        std::move_only_function<void()> body);

} // namespace godwit::sys
