#pragma once

/// What a confined process was refused, as its starter learns it: system calls its filter hands to
/// the listener, and notes the process itself makes in the form of such a call, because after a
/// fault in memory it can do little else.

#include "base/result.h"
#include "sys/fd.h"

#include <array>
#include <cstdint>
#include <optional>

namespace godwit::sys {

struct Refusal {
    int call = 0; ///< Number of the system call, or `trespass_call`.
    std::array<std::uint64_t, 6> arguments{};
};

/// No system call has this number, nor ever will: those of x86-64 end far below, those of its
/// 32-bit pointers (x32) begin at 1 << 30.
inline constexpr int trespass_call = 0x3ff00001;

/// What was tried and did not succeed; the first argument of a `trespass_call`, the second is an
/// address or 0.
enum class Trespass : std::uint32_t {
    memory_written = 1,   ///< Faulted: the mapping may only be read.
    memory_mapped = 2,    ///< Refused by the kernel: the descriptor is open for reading only.
    memory_protected = 3, ///< Refused by the kernel for the same reason.
    memory_reopened = 4,  ///< Refused: there is no path to the open file.
    file_opened = 5,      ///< Not there.
    memory_unknown = 6,   ///< Another fault in memory.
};

/// Takes the next refused call, which fails with EPERM in the process. Nothing if there is none by
/// now. Starter's thread.
[[nodiscard]] Result<std::optional<Refusal>> next_refusal(const Fd& refusals);

/// In the confined process: tells its starter. Any thread, also from a signal handler. Without
/// confinement, or if the starter has gone, nothing happens.
void note_trespass(Trespass what, std::uint64_t address) noexcept;

/// In the confined process: a write to memory it may only read, or any other fault, is noted before
/// the process ends by it. Early in main().
void note_faults() noexcept;

} // namespace godwit::sys
