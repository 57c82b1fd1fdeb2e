#pragma once

/// A child process with its own user, mount, process, network and message namespaces, a file system
/// that holds nothing but what it is shown, no capability over the host, and a filter on its system
/// calls. None of this is ever relaxed; the process can leave the narrow file system and its own
/// user id with a descriptor of the host's root directory, which only someone outside can give it.
///
/// Requirement HR-1 and HR-2: where a new VMM waits until it is trusted. Steps in the child and why
/// in that order: confinement_child.cpp. Owner thread only.

#include "base/result.h"
#include "sys/process.h"

#include <linux/filter.h>

#include <string>
#include <vector>

namespace godwit::sys {

struct Confinement {
    /// Absolute paths of the host, each with what is below it, that the child sees, read-only.
    /// Devices can be used. What is not there is left out.
    std::vector<std::string> visible;
    /// The child's user and group, on the host too; another one than ours needs root.
    unsigned uid = 0;
    unsigned gid = 0;
    /// Which system calls it may make; others that the filter hands to its listener wait for
    /// `refusals`.
    std::vector<sock_filter> filter;
};

struct ConfinedProcess {
    Process process;
    /// Readable when a call was refused: for next_refusal(). Closed: such calls fail by themselves.
    Fd refusals;
};

/// Starts it. `unsupported` says which step the host refuses: then nothing runs. Another error: the
/// program itself cannot be started.
[[nodiscard]] Result<ConfinedProcess> spawn_confined(const SpawnOptions& options,
                                                     const Confinement& confinement);

/// Who a confined process becomes when it leaves.
struct Home {
    unsigned uid = 0;
    unsigned gid = 0;
};
/// In the confined process, whose threads all go: sees the host's files from `root` on and has the
/// ids of whoever started it. Namespaces, lost capabilities and the filter stay.
[[nodiscard]] Status leave_confinement(const Fd& root, Home home);

} // namespace godwit::sys
