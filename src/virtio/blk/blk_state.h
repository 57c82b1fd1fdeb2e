#pragma once

/// The saved form of a virtio disk (section "virtio-blk"): what its guest has seen of it, so that a
/// successor can tell whether its own disk is the same one.

#include "base/result.h"
#include "block/block_device.h"
#include "state/state_unit.h"
#include "virtio/blk/blk_config.h"

#include <vector>

namespace godwit::virtio {

inline constexpr state::SectionType blk_section{"virtio-blk", 2};

/// A request for the next owner: taken from the queue, and waiting for somebody to make room.
struct GivenBack {
    std::uint16_t queue = 0;
    std::uint16_t head = 0;
    friend bool operator==(const GivenBack&, const GivenBack&) = default;
};

struct BlkState {
    BlkOptions options; ///< Without the instance, which is the section's.
    block::BlockGeometry geometry;
    std::vector<GivenBack> given_back; ///< The oldest of each queue first.
};

/// Of version 1 if nothing is given back, so that older builds read it.
[[nodiscard]] state::Section encode(const BlkState& disk, std::uint32_t instance);
[[nodiscard]] Result<BlkState> decode_blk(const state::Section& section);
/// Whether a guest that knew `saved` can go on with `now`. A size may have changed; it is told.
[[nodiscard]] Status check_same_disk(const BlkState& saved, const BlkState& now);

} // namespace godwit::virtio
