#pragma once

/// The child's side of spawn_confined(): system calls only, on data made before the clone, because
/// the memory is a copy of a process whose other threads may hold any lock. Private to src/sys.

#include "base/result.h"
#include "sys/fd.h"

#include <linux/filter.h>

#include <cstdint>
#include <string>
#include <vector>

namespace godwit::sys {

/// What is made in the child's file system, in order; paths are relative to its root.
struct ViewStep {
    enum class Kind : std::uint8_t { directory, link, show_directory, show_file };
    Kind kind = Kind::directory;
    std::string path;
    std::string target; ///< Of a link its text, of what is shown its path on the host.
};

/// Everything the child works from.
struct ConfinedPlan {
    std::vector<ViewStep> view;
    std::string base; ///< Where the new file system is put together, a directory of the host.
    unsigned uid = 0;
    unsigned gid = 0;
    bool changes_user = false;
    std::uint64_t capabilities = 0; ///< What it keeps in its own user namespace.
    std::vector<sock_filter> filter;
    int gate = -1; ///< Socket to the parent: one byte lets us begin, the answer goes back.
};

/// What the child says before its program runs: the step that failed, or 0 and, beside it, the
/// descriptor of the refusals.
struct ConfinedAnswer {
    std::int32_t step = 0;
    std::int32_t os_errno = 0;
};
/// What a step of the answer is called.
[[nodiscard]] const char* confinement_step_name(std::int32_t step) noexcept;

/// Waits for the parent, then does all steps. False if one failed: the parent has been told.
[[nodiscard]] bool confine_this_process(const ConfinedPlan& plan) noexcept;
/// Tells the parent of a failure.
void answer_failure(int gate, std::int32_t step, int os_errno) noexcept;
/// The step of starting the program itself.
inline constexpr std::int32_t step_program = 100;

} // namespace godwit::sys
