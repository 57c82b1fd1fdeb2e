#pragma once

/// Guest RAM to and from files, without the zeroes: snapshots and copies of them.
/// Thread rule: any one thread; the guest at rest while its RAM is written.

#include "base/result.h"
#include "memory/guest_memory.h"
#include "sys/fd.h"

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace godwit::memory {

struct RamFileResult {
    std::uint64_t ram_bytes = 0;
    std::uint64_t written_bytes = 0; ///< Pages that were not all zero.
};

/// Told how many bytes of RAM have been looked at, of how many.
using RamFileProgress = std::function<void(std::uint64_t done, std::uint64_t total)>;

/// Writes RAM to the new file `path`, sparse: pages of zeroes become holes. Durable when it
/// returns. Pages the backing never had are not even looked at. `cancel` is obeyed every few MiB;
/// then, and on every failure, the file is removed again. `backing` is the descriptor of `memory`'s
/// bytes, `runs` where they lie in it (RamSpec::runs); none: from its start.
[[nodiscard]] Result<RamFileResult> write_ram_file(const GuestMemory& memory,
                                                   const sys::Fd& backing,
                                                   const std::string& path,
                                                   const RamFileProgress& progress,
                                                   const std::atomic<bool>& cancel,
                                                   std::span<const PoolRun> runs = {});

/// Copies the data of the RAM file `from`, of `bytes` bytes, into `to`, which is all zero: from its
/// start, or into `runs` of it.
[[nodiscard]] Status copy_ram(const sys::Fd& from,
                              const sys::Fd& to,
                              std::uint64_t bytes,
                              std::span<const PoolRun> runs = {});

} // namespace godwit::memory
