#pragma once

/// Which parts of a disk are written often, in bounded memory (PD-1, PD-5): at most 1 MiB per TiB,
/// at least 4 KiB. Never forgets a hot part while it is hot; may take a cold one for hot, which
/// costs time only. A part is a granule of 64 KiB unless told otherwise.
///
/// Two kinds. Multi-stage: several arrays of counters, each with a hash of its own; a write raises
/// only the smallest of its counters (conservative update, Estan and Varghese 2002); hot is what
/// all of its counters say. Ladder of Bloom filters: a write enters the first filter that does not
/// have it; hot is what has climbed to the last. Both age: what was seen counts half after a while.
///
/// Owner thread only: the disk's loop. A note costs a few hashes; without a filter, nothing.

#include "block/block_set.h"

#include <array>
#include <cstdint>
#include <vector>

namespace godwit::block {

enum class FilterKind : std::uint8_t { multi_stage, bloom };

struct FilterOptions {
    FilterKind kind = FilterKind::multi_stage;
    std::uint64_t disk_bytes = 0;
    std::uint32_t block_bytes = 512;
    std::uint32_t granule_bytes = 64 * 1024; ///< A multiple of the block.
    std::uint8_t threshold = 4;              ///< Writes that make hot; 1..hot_threshold_max
    /// Writes after which what was seen counts half.
    std::uint64_t aging_writes = std::uint64_t{1} << 16U;
};

inline constexpr std::uint8_t hot_threshold_max = 8;

class HotFilter {
  public:
    static constexpr std::size_t histogram_size = hot_threshold_max + 1;

    [[nodiscard]] static Result<HotFilter> create(const FilterOptions& options);

    /// The guest has changed these blocks.
    void note(const BlockRange& blocks) noexcept;
    [[nodiscard]] bool is_hot(std::uint64_t block) const noexcept {
        return weight(block / blocks_per_granule_) >= options_.threshold;
    }
    /// Blocks of the granule that `block` lies in.
    [[nodiscard]] BlockRange granule_of(std::uint64_t block) const noexcept {
        const std::uint64_t first = block / blocks_per_granule_ * blocks_per_granule_;
        return {.first = first, .end = first + blocks_per_granule_};
    }
    /// How many granules are taken to have been written 0, 1, ... times; the last: or more (PD-1).
    [[nodiscard]] std::array<std::uint64_t, histogram_size> histogram() const noexcept;
    [[nodiscard]] std::uint64_t memory_bytes() const noexcept { return cells_.size(); }
    [[nodiscard]] std::uint32_t granule_bytes() const noexcept { return options_.granule_bytes; }
    [[nodiscard]] std::uint8_t threshold() const noexcept { return options_.threshold; }

  private:
    static constexpr std::size_t stages = 4;

    explicit HotFilter(const FilterOptions& options);
    [[nodiscard]] std::uint64_t cell(std::uint64_t granule, std::size_t stage) const noexcept;
    [[nodiscard]] std::uint8_t weight(std::uint64_t granule) const noexcept;
    void note_granule(std::uint64_t granule) noexcept;
    void age() noexcept;

    FilterOptions options_;
    std::uint64_t blocks_per_granule_;
    std::uint64_t granules_;
    std::uint64_t cells_per_stage_;
    /// multi_stage: counters, stage after stage. bloom: bit n of a cell is the ladder's filter n.
    std::vector<std::uint8_t> cells_;
    std::uint64_t noted_ = 0;
};

} // namespace godwit::block
