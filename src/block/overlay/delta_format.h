#pragma once

/// The delta of a frozen disk as it lies on storage (docs/formats/disk-delta.md): headers, journal,
/// creating, opening and checking. What is read is hostile until it is checked.
///
/// Creating, opening and checking wait for storage: before a machine's loop has the delta, not on
/// it. Any thread, one at a time for each delta.

#include "base/result.h"
#include "block/block_set.h"
#include "block/overlay/delta_map.h"
#include "sys/fd.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace godwit::block {

inline constexpr std::uint64_t delta_block_bytes = 4096;
inline constexpr std::uint64_t delta_journal_offset = 2 * delta_block_bytes;
inline constexpr std::size_t delta_entries_max = 252;
inline constexpr std::uint64_t delta_slots_max = std::uint64_t{1} << 28U;
inline constexpr std::uint32_t delta_cluster_bytes_min = 4096;
inline constexpr std::uint32_t delta_cluster_bytes_max = 1U << 20U;
/// Of the disk. An empty map takes 8 bytes for 1024 of them, a full one 4 KiB: at most 4 GiB.
inline constexpr std::uint64_t delta_clusters_max = std::uint64_t{1} << 30U;

using SnapshotId = std::array<std::byte, 16>;
/// 32 hexadecimal digits.
[[nodiscard]] std::string to_text(const SnapshotId& id);

struct DeltaHeader {
    std::uint32_t cluster_bytes = 16 * 1024;
    std::uint64_t generation = 1;
    std::uint64_t disk_bytes = 0;
    std::uint64_t slots = 0;
    std::uint64_t data_offset = 0;
    std::uint32_t journal_blocks = 0;
    std::uint32_t active_half = 0;
    std::uint64_t epoch = 0;
    SnapshotId snapshot_id{};
    std::uint64_t journal_id = 0;        ///< Of this journal, and of no attempt before or after it.
    std::uint32_t checkpoint_blocks = 0; ///< The journal's first ones, durable before the header.

    [[nodiscard]] std::uint64_t clusters() const noexcept {
        return (disk_bytes + cluster_bytes - 1) / cluster_bytes;
    }
    [[nodiscard]] std::uint64_t journal_place(std::uint64_t index) const noexcept {
        return delta_journal_offset +
               (std::uint64_t{active_half} * journal_blocks + index) * delta_block_bytes;
    }
    [[nodiscard]] std::uint64_t slot_place(std::uint64_t slot) const noexcept {
        return data_offset + slot * cluster_bytes;
    }
};

struct DeltaEntry {
    std::uint64_t cluster = 0;
    std::uint32_t slot = 0; ///< DeltaMap::none: in the base.
    std::uint32_t count = 0;
};

using DeltaBlock = std::array<std::byte, delta_block_bytes>;
[[nodiscard]] DeltaBlock encode(const DeltaHeader& header);
[[nodiscard]] Result<DeltaHeader> decode_delta_header(std::span<const std::byte> block);
/// At most delta_entries_max entries.
[[nodiscard]] DeltaBlock
encode(const DeltaHeader& header, std::uint64_t index, std::span<const DeltaEntry> entries);
/// Appends its entries, unchecked but for their form; false if it is not of this journal.
[[nodiscard]] bool decode_delta_journal(std::span<const std::byte> block,
                                        const DeltaHeader& header,
                                        std::uint64_t index,
                                        std::vector<DeltaEntry>& entries);

/// Where a delta lies, for what waits. Offsets and lengths are whole delta blocks.
class DeltaStorage {
  public:
    DeltaStorage() = default;
    DeltaStorage(const DeltaStorage&) = delete;
    DeltaStorage& operator=(const DeltaStorage&) = delete;
    virtual ~DeltaStorage() = default;
    [[nodiscard]] virtual Result<std::uint64_t> bytes() = 0;
    [[nodiscard]] virtual Status read(std::uint64_t offset, std::span<std::byte> out) = 0;
    [[nodiscard]] virtual Status write(std::uint64_t offset, std::span<const std::byte> data) = 0;
    [[nodiscard]] virtual Status flush() = 0;
};

/// A file or block device, opened with or without O_DIRECT. The descriptor outlives it.
class DeltaFile final : public DeltaStorage {
  public:
    explicit DeltaFile(const sys::Fd& file) : file_(file) {}
    [[nodiscard]] Result<std::uint64_t> bytes() override;
    [[nodiscard]] Status read(std::uint64_t offset, std::span<std::byte> out) override;
    [[nodiscard]] Status write(std::uint64_t offset, std::span<const std::byte> data) override;
    [[nodiscard]] Status flush() override;

  private:
    const sys::Fd& file_;
};

/// What a delta takes that holds every cluster of such a disk.
[[nodiscard]] std::uint64_t delta_bytes_for(std::uint64_t disk_bytes, std::uint32_t cluster_bytes);

struct DeltaOptions {
    std::uint64_t disk_bytes = 0;
    std::uint32_t cluster_bytes = 16 * 1024;
    std::uint64_t epoch = 0;
    SnapshotId snapshot_id{}; ///< Zeros: a random one.
};

/// Lays a new delta into all the room there is. Writes two blocks, its header and zeros in the
/// other one's place (LS-1). resource_exhausted if it holds not even 16 clusters.
[[nodiscard]] Status create_delta(DeltaStorage& storage, const DeltaOptions& options);

/// The header that counts; corrupt as well if storage is smaller than it says.
[[nodiscard]] Result<DeltaHeader> read_delta_header(DeltaStorage& storage);

/// What an opened delta says. Its checkpoint has been made.
struct DeltaState {
    DeltaHeader header;
    DeltaMap map;
    BlockSet used;                   ///< Slots.
    std::uint64_t journal_index = 0; ///< The next block's.
};

/// Reads and checks a delta and stamps it with `epoch`; conflict if its own is higher.
[[nodiscard]] Result<DeltaState> open_delta(DeltaStorage& storage, std::uint64_t epoch);

/// What `check` says of a delta it does not change.
struct DeltaCheck {
    DeltaHeader header;
    std::uint64_t journal_blocks_used = 0;
    std::uint64_t clusters_mapped = 0;
};
[[nodiscard]] Result<DeltaCheck> check_delta(DeltaStorage& storage);

/// All durable entries of the map as blocks of a checkpoint.
[[nodiscard]] std::vector<DeltaBlock> checkpoint_blocks(const DeltaHeader& header,
                                                        const DeltaMap& map);

} // namespace godwit::block
