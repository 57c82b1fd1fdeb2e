#pragma once

/// Guest RAM as a shared object that outlives the process: where it lies in guest-physical space
/// (RamLayout) and what holds its bytes (RamBacking). Never anonymous private memory, except
/// that a restored snapshot may be mapped copy-on-write until its first exchange. Values and
/// owners; any thread may read them.

#include "base/result.h"
#include "base/units.h"
#include "sys/fd.h"

#include <cstdint>
#include <string>
#include <vector>

namespace godwit::memory {

/// Guest-physical addresses from here to 4 GiB belong to devices, never to RAM.
inline constexpr std::uint64_t pci_hole_start = 0xC000'0000;
inline constexpr std::uint64_t pci_hole_end = 0x1'0000'0000;
inline constexpr std::uint64_t ram_bytes_min = 32 * mib;
inline constexpr std::uint64_t ram_bytes_max = std::uint64_t{16} * 1024 * gib;

/// One run of RAM: `bytes` at guest address `start`, at `offset` of the backing.
struct RamRegion {
    Gpa start;
    std::uint64_t bytes = 0;
    std::uint64_t offset = 0;
};

/// The regions of a machine with `ram_bytes` of RAM: one below the PCI hole, the rest from 4 GiB.
/// `ram_bytes` is a multiple of 2 MiB within [ram_bytes_min, ram_bytes_max].
[[nodiscard]] Result<std::vector<RamRegion>> layout_of(std::uint64_t ram_bytes);

enum class RamKind : std::uint8_t {
    memfd,   ///< Shared anonymous file, transparent huge pages asked for.
    hugetlb, ///< Shared anonymous file of reserved 2 MiB pages.
    file,    ///< A named file; the machine's RAM is the file's bytes.
    pool,    ///< Runs of the host's memory pool, which the instance hands out (pool/pool.h).
};

/// A run of the pool's bytes, both a multiple of 2 MiB.
struct PoolRun {
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
    friend bool operator==(const PoolRun&, const PoolRun&) = default;
};
/// Each run is one mapping, and all of them travel in the machine's document.
inline constexpr std::size_t pool_runs_max = 512;

/// What the RAM is made of, as it stands in a machine document.
struct RamSpec {
    std::uint64_t bytes = 256 * mib;
    RamKind kind = RamKind::memfd;
    std::string path; ///< Only for RamKind::file.
    /// Only for RamKind::pool: where the RAM lies, in order of guest addresses, `bytes` in sum.
    std::vector<PoolRun> runs{};
};

/// The object that holds the bytes, and how it can be opened again by another process.
class RamBacking {
  public:
    /// Creates the backing; fails with resource_exhausted if the host has not that much memory.
    [[nodiscard]] static Result<RamBacking> create(const std::string& machine_name,
                                                   const RamSpec& spec);
    /// Takes a descriptor over from another process; its size must be the spec's, or that of a
    /// pool which all runs of the spec lie in.
    [[nodiscard]] static Result<RamBacking> adopt(sys::Fd fd, const RamSpec& spec);

    [[nodiscard]] const sys::Fd& fd() const noexcept { return fd_; }
    [[nodiscard]] const RamSpec& spec() const noexcept { return spec_; }

  private:
    RamBacking(sys::Fd fd, RamSpec spec) : fd_(std::move(fd)), spec_(std::move(spec)) {}
    sys::Fd fd_;
    RamSpec spec_;
};

} // namespace godwit::memory
