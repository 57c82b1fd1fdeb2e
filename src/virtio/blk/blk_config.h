#pragma once

/// The configuration space and features of a virtio disk (virtio 1.2, section 5.2.3 and 5.2.4),
/// from its back end's geometry. Values and pure functions.

#include "block/block_device.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace godwit::virtio {

namespace blk_feature {
inline constexpr std::uint64_t seg_max = 1ULL << 2U;
inline constexpr std::uint64_t read_only = 1ULL << 5U;
inline constexpr std::uint64_t blk_size = 1ULL << 6U;
inline constexpr std::uint64_t flush = 1ULL << 9U;
inline constexpr std::uint64_t topology = 1ULL << 10U;
inline constexpr std::uint64_t multi_queue = 1ULL << 12U;
inline constexpr std::uint64_t discard = 1ULL << 13U;
inline constexpr std::uint64_t write_zeroes = 1ULL << 14U;
} // namespace blk_feature

inline constexpr std::size_t blk_serial_bytes = 20;
inline constexpr std::size_t blk_config_bytes = 60;
inline constexpr std::uint16_t blk_queues_max = 64;
inline constexpr std::uint16_t blk_queue_size_min = 4;
/// One discard or write-zeroes request covers at most 1 GiB, in one segment.
inline constexpr std::uint32_t blk_discard_sectors_max = 1U << 21U;

/// What the machine's owner decides about a disk.
struct BlkOptions {
    std::uint32_t instance = 0; ///< Of its saved section.
    std::string serial;         ///< At most blk_serial_bytes.
    std::uint16_t queues = 1;   ///< 1..blk_queues_max
    std::uint16_t queue_size = 256;
};

[[nodiscard]] Status validate(const BlkOptions& options);
[[nodiscard]] std::uint64_t blk_features(const BlkOptions& options,
                                         const block::BlockGeometry& geometry);
/// struct virtio_blk_config.
[[nodiscard]] std::array<std::byte, blk_config_bytes>
blk_config(const BlkOptions& options, const block::BlockGeometry& geometry);

} // namespace godwit::virtio
