#pragma once

/// A machine on disk: its document, its saved state and its RAM (docs/formats/snapshot.md). Disks
/// are referenced by path, not copied. Thread rule: the machine's control thread, the machine at
/// rest.

#include "base/result.h"
#include "machine/machine.h"

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

namespace godwit::vmm {

struct SnapshotReport {
    std::uint64_t ram_bytes = 0;
    std::uint64_t written_bytes = 0; ///< RAM that was not zero.
    std::uint64_t state_bytes = 0;
};

/// Bytes of RAM looked at so far, of all.
using SnapshotProgress = std::function<void(std::uint64_t done, std::uint64_t total)>;

/// Writes the machine into `directory`, which must not exist or be empty. On failure what was
/// written is removed again.
[[nodiscard]] Result<SnapshotReport> write_snapshot(machine::Machine& machine,
                                                    const std::string& directory,
                                                    const SnapshotProgress& progress,
                                                    const std::atomic<bool>& cancel);

/// What a restore needs: the description, the state and the open RAM file.
struct Snapshot {
    machine::MachineSpec spec;
    state::SavedState state;
    sys::Fd ram;
};
[[nodiscard]] Result<Snapshot> read_snapshot(const std::string& directory);

} // namespace godwit::vmm
