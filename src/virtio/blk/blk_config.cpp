#include "virtio/blk/blk_config.h"

#include "base/units.h"
#include "bus/little_endian.h"
#include "virtio/virt_queue.h"

#include <algorithm>
#include <bit>

namespace godwit::virtio {

Status validate(const BlkOptions& options) {
    if (options.serial.size() > blk_serial_bytes) {
        return Error(ErrorCode::invalid_argument,
                     "disk serial number \"" + options.serial + "\" is longer than 20 bytes");
    }
    if (options.queues == 0 || options.queues > blk_queues_max) {
        return Error(ErrorCode::invalid_argument,
                     "a disk with " + std::to_string(options.queues) +
                         " queues, 1 to 64 are possible");
    }
    if (!std::has_single_bit(options.queue_size) || options.queue_size < blk_queue_size_min ||
        options.queue_size > queue_size_max) {
        return Error(ErrorCode::invalid_argument,
                     "disk queues of size " + std::to_string(options.queue_size) +
                         ", a power of two from 4 to 1024 is possible");
    }
    return ok();
}

std::uint64_t blk_features(const BlkOptions& options, const block::BlockGeometry& geometry) {
    std::uint64_t features =
        blk_feature::seg_max | blk_feature::blk_size | blk_feature::flush | blk_feature::topology;
    features |= options.queues > 1 ? blk_feature::multi_queue : 0;
    features |= geometry.read_only ? blk_feature::read_only : 0;
    const bool changes = !geometry.read_only;
    features |= changes && geometry.can_discard ? blk_feature::discard : 0;
    features |= changes && geometry.can_write_zeroes ? blk_feature::write_zeroes : 0;
    return features;
}

namespace {

// Offsets of struct virtio_blk_config (section 5.2.4).
constexpr std::size_t capacity_at = 0;
constexpr std::size_t seg_max_at = 12;
constexpr std::size_t blk_size_at = 20;
constexpr std::size_t physical_block_exp_at = 24;
constexpr std::size_t min_io_size_at = 26;
constexpr std::size_t writeback_at = 32;
constexpr std::size_t num_queues_at = 34;
constexpr std::size_t max_discard_sectors_at = 36;
constexpr std::size_t max_discard_seg_at = 40;
constexpr std::size_t discard_sector_alignment_at = 44;
constexpr std::size_t max_write_zeroes_sectors_at = 48;
constexpr std::size_t max_write_zeroes_seg_at = 52;
constexpr std::size_t write_zeroes_may_unmap_at = 56;

} // namespace

std::array<std::byte, blk_config_bytes> blk_config(const BlkOptions& options,
                                                   const block::BlockGeometry& geometry) {
    std::array<std::byte, blk_config_bytes> config{};
    const auto put = [&](std::size_t at, std::size_t bytes, std::uint64_t value) {
        bus::store_little(std::span(config).subspan(at, bytes), value);
    };
    const std::uint32_t logical = geometry.logical_block_bytes;
    const std::uint32_t physical = std::max(geometry.physical_block_bytes, logical);
    put(capacity_at, 8, geometry.bytes / sector_size);
    // Header and status need a descriptor each.
    put(seg_max_at, 4, options.queue_size - 2U);
    put(blk_size_at, 4, logical);
    put(physical_block_exp_at,
        1,
        static_cast<std::uint64_t>(std::bit_width(physical / logical)) - 1);
    put(min_io_size_at, 2, physical / logical);
    put(writeback_at, 1, 1);
    put(num_queues_at, 2, options.queues);
    put(max_discard_sectors_at, 4, blk_discard_sectors_max);
    put(max_discard_seg_at, 4, 1);
    put(discard_sector_alignment_at, 4, physical / sector_size);
    put(max_write_zeroes_sectors_at, 4, blk_discard_sectors_max);
    put(max_write_zeroes_seg_at, 4, 1);
    put(write_zeroes_may_unmap_at, 1, geometry.can_discard ? 1 : 0);
    return config;
}

} // namespace godwit::virtio
