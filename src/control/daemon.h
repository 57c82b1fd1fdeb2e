#pragma once

/// godwitd as a whole: takes the run directory, adopts what runs, serves the API until told to
/// stop or idle for long enough. Machines run on after it.

#include "base/result.h"
#include "control/service_partition.h"
#include "sys/fd.h"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace godwit::control {

struct DaemonOptions {
    std::string run_directory; ///< Empty: sys::default_run_path().
    std::string vmm_program;   ///< Empty: GODWIT_VMM or beside the own executable.
    PartitionPolicy partition = PartitionPolicy::prefer; ///< Where successors wait.
    /// Ends when no machine ran and nobody asked for this long; zero: never.
    std::chrono::seconds exit_when_idle{0};
    /// Flags a godwitd that this process becomes is started with as well.
    std::vector<std::string> kept_arguments;
    /// The run directory's lock, held by the godwitd this process was before; may be invalid.
    sys::Fd inherited_lock;
    /// Size of the host's memory pool; 0: none; nothing: all memory, when it is first wanted.
    std::optional<std::uint64_t> pool_bytes;
    /// Socket to the godwitd this one takes a divided host over from; invalid: none.
    sys::Fd join;
};

/// Serves until `stop` is signalled. `ready` gets one JSON line, {"ok":true} or {"error":{...}},
/// once the API can be reached or the start has failed; it may be invalid. busy if another godwitd
/// has the run directory. Runs on the calling thread, which becomes the control thread.
[[nodiscard]] Status run_daemon(DaemonOptions options, const sys::EventFd& stop, sys::Fd ready);

} // namespace godwit::control
