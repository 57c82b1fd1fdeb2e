#pragma once

/// Child processes. Owner thread only.

#include "base/result.h"
#include "sys/fd.h"

#include <chrono>
#include <optional>
#include <string>
#include <vector>

namespace godwit::sys {

/// A descriptor the child gets under a chosen number.
struct PassedFd {
    const Fd* fd = nullptr;
    int number = -1; ///< At least 3.
};

struct SpawnOptions {
    std::string program;                ///< A path; PATH is not searched.
    std::vector<std::string> arguments; ///< Without argv[0].
    std::vector<PassedFd> fds;
    const Fd* standard_input = nullptr; ///< Inherited if null.
    const Fd* standard_error = nullptr; ///< Where stdout and stderr go; inherited if null.
    bool new_session = true;            ///< setsid(): the child outlives this process's terminal.
};

/// How a process ended.
struct ExitStatus {
    bool known = true; ///< False of a process that is not our child; only its parent is told.
    bool signalled = false;
    int code = 0; ///< Exit code, or signal number if `signalled`.
    [[nodiscard]] std::string to_string() const;
};

/// Processor time all threads of this process have used. Any thread.
[[nodiscard]] std::chrono::nanoseconds process_cpu_time() noexcept;

/// Page faults that needed no storage: of all threads of this process, and of the calling one. Any
/// thread.
struct PageFaults {
    std::uint64_t process = 0;
    std::uint64_t thread = 0;
};
[[nodiscard]] PageFaults page_faults() noexcept;

/// Our number as the host sees it, if its /proc can be seen; else the one in our own namespace. Any
/// thread.
[[nodiscard]] int host_pid();

/// A process seen through a pidfd: its number cannot be reused under us. Destroying it neither
/// kills nor waits.
class Process {
  public:
    [[nodiscard]] static Result<Process> spawn(const SpawnOptions& options);
    /// A running process that is not our child; not_found if there is none.
    [[nodiscard]] static Result<Process> adopt(int pid);

    [[nodiscard]] int pid() const noexcept { return pid_; }
    /// Readable once the process has ended; for EventLoop::watch.
    [[nodiscard]] const Fd& fd() const noexcept { return pidfd_; }
    [[nodiscard]] Status signal(int number) const;
    /// Waits up to `timeout` for the end. Nothing if it still runs. For an adopted process the code
    /// is unknown and given as 0.
    [[nodiscard]] Result<std::optional<ExitStatus>> wait(std::chrono::milliseconds timeout) const;

  private:
    Process(int pid, Fd pidfd) : pid_(pid), pidfd_(std::move(pidfd)) {}
    int pid_ = -1;
    Fd pidfd_;
};

/// Replaces the program of this process (execve); comes back only with the reason why not. Of the
/// descriptors only `fds` stay open, beside those inherited.
[[nodiscard]] Error become(const SpawnOptions& options);

/// Takes note of children that have ended and that nobody here watches: those of the program this
/// process was before. Before any child of its own is started.
void reap_ended_children() noexcept;

/// Lets this process hold as many descriptors as it may at all.
[[nodiscard]] Status raise_descriptor_limit();

} // namespace godwit::sys
