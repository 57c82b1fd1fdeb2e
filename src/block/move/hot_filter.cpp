#include "block/move/hot_filter.h"

#include "base/units.h"

#include <algorithm>
#include <bit>

namespace godwit::block {

namespace {

constexpr std::uint64_t bytes_min = 4096;
constexpr std::uint64_t disk_bytes_per_byte = mib; // 1 MiB per TiB

/// The finalizer of SplitMix64, with the stage as its seed.
std::uint64_t hash(std::uint64_t granule, std::size_t stage) noexcept {
    std::uint64_t z = granule + (stage + 1) * 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111eb;
    return z ^ (z >> 31U);
}

} // namespace

Result<HotFilter> HotFilter::create(const FilterOptions& options) {
    if (options.disk_bytes == 0 || options.block_bytes == 0 || options.aging_writes == 0 ||
        options.granule_bytes == 0 || options.granule_bytes % options.block_bytes != 0) {
        return Error(ErrorCode::invalid_argument,
                     "a filter needs a disk, and granules of whole blocks");
    }
    if (options.threshold == 0 || options.threshold > hot_threshold_max) {
        return Error(ErrorCode::invalid_argument,
                     "a block is hot after 1 to " + std::to_string(hot_threshold_max) + " writes");
    }
    return HotFilter(options);
}

HotFilter::HotFilter(const FilterOptions& options)
    : options_(options), blocks_per_granule_(options.granule_bytes / options.block_bytes),
      granules_((options.disk_bytes + options.granule_bytes - 1) / options.granule_bytes),
      cells_per_stage_(
          std::bit_floor(std::max(bytes_min, options.disk_bytes / disk_bytes_per_byte) / stages)),
      cells_(cells_per_stage_ * stages) {}

std::uint64_t HotFilter::cell(std::uint64_t granule, std::size_t stage) const noexcept {
    return stage * cells_per_stage_ + (hash(granule, stage) & (cells_per_stage_ - 1));
}

std::uint8_t HotFilter::weight(std::uint64_t granule) const noexcept {
    if (options_.kind == FilterKind::multi_stage) {
        std::uint8_t least = 0xff;
        for (std::size_t stage = 0; stage < stages; ++stage) {
            least = std::min(least, cells_[cell(granule, stage)]);
        }
        return least;
    }
    std::uint8_t common = 0xff;
    for (std::size_t stage = 0; stage < stages; ++stage) {
        common &= cells_[cell(granule, stage)];
    }
    return static_cast<std::uint8_t>(std::countr_one(common));
}

void HotFilter::note(const BlockRange& blocks) noexcept {
    if (blocks.empty()) {
        return;
    }
    const std::uint64_t last = std::min(granules_ - 1, (blocks.end - 1) / blocks_per_granule_);
    for (std::uint64_t granule = blocks.first / blocks_per_granule_; granule <= last; ++granule) {
        note_granule(granule);
    }
    if (++noted_ % options_.aging_writes == 0) {
        age();
    }
}

void HotFilter::note_granule(std::uint64_t granule) noexcept {
    const std::uint8_t known = weight(granule);
    if (known >= hot_threshold_max) {
        return;
    }
    for (std::size_t stage = 0; stage < stages; ++stage) {
        std::uint8_t& value = cells_[cell(granule, stage)];
        if (options_.kind == FilterKind::bloom) {
            value |= static_cast<std::uint8_t>(1U << known);
        } else if (value == known) {
            ++value; // Larger ones count others as well.
        }
    }
}

void HotFilter::age() noexcept {
    for (std::uint8_t& value : cells_) {
        if (options_.kind == FilterKind::multi_stage) {
            value = static_cast<std::uint8_t>(value / 2);
        } else {
            // Half as many rungs: filters 1, 3, 5, 7 become 0, 1, 2, 3.
            value = static_cast<std::uint8_t>((value >> 1U & 1U) | (value >> 2U & 2U) |
                                              (value >> 3U & 4U) | (value >> 4U & 8U));
        }
    }
}

std::array<std::uint64_t, HotFilter::histogram_size> HotFilter::histogram() const noexcept {
    std::array<std::uint64_t, histogram_size> counts{};
    for (std::uint64_t granule = 0; granule < granules_; ++granule) {
        ++counts[std::min<std::size_t>(weight(granule), histogram_size - 1)];
    }
    return counts;
}

} // namespace godwit::block
