#pragma once

/// All guest memory of a host as one shared object, with the table that says whose each frame is.
///
/// The memory is a sealed memfd that every hypervisor instance maps piece by piece; it is never
/// copied. An instance hands out what the table says is its own and free. Owner: the hypervisor
/// instance. Thread rule: allocate() and free() take a lock of this object; only one process of an
/// instance calls them (the others get lists of extents). Everything else as ExtentTable.

#include "memory/pool/extent_check.h"
#include "memory/pool/extent_table.h"
#include "memory/ram.h"

#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace godwit::memory {

class Pool {
  public:
    /// A pool of `bytes` (a multiple of 2 MiB), all of it free and owned by `first`. Memory is
    /// taken from the host when it is touched. `pool_id` is random.
    [[nodiscard]] static Result<Pool>
    create(std::uint64_t bytes, PoolOwner first, std::uint64_t pool_id);
    /// Maps the table of a pool received from another process; corrupt unless both descriptors are
    /// sealed and belong together.
    [[nodiscard]] static Result<Pool> adopt(sys::Fd memory, sys::Fd table);

    [[nodiscard]] ExtentTable& table() noexcept { return table_; }
    [[nodiscard]] const ExtentTable& table() const noexcept { return table_; }
    [[nodiscard]] const sys::Fd& memory_fd() const noexcept { return memory_; }
    [[nodiscard]] std::uint64_t bytes() const noexcept {
        return table_.frames() * pool_frame_bytes;
    }

    /// Takes `frames` of the owner's free frames for `purpose` and `tag`, in one extent if there is
    /// one large enough, otherwise in as few as possible; positions run from 0.
    /// resource_exhausted changes nothing. The bytes are those the frames had: scrub() first if
    /// they held another program's.
    [[nodiscard]] Result<std::vector<Extent>>
    allocate(PoolOwner owner, std::uint64_t frames, Purpose purpose, std::uint64_t tag);
    /// Scrubs the owner's extents, makes them free and joins them with free neighbours.
    [[nodiscard]] Status free(std::span<const Extent> extents);
    /// Gives the frames' bytes back to the host; they read as zero afterwards.
    [[nodiscard]] Status scrub(const FrameRun& run) const;

  private:
    Pool(sys::Fd memory, ExtentTable table)
        : memory_(std::move(memory)), table_(std::move(table)),
          mutex_(std::make_unique<std::mutex>()) {}
    [[nodiscard]] Status join_free(PoolOwner owner);
    sys::Fd memory_;
    ExtentTable table_;
    std::unique_ptr<std::mutex> mutex_;
};

/// The runs of a machine's RAM in bytes of the pool's memory, for RamSpec::runs.
[[nodiscard]] std::vector<PoolRun> ram_runs(std::span<const Extent> extents);

} // namespace godwit::memory
