#pragma once

/// The saved form of a balloon (section "virtio-balloon", state/virtio_balloon.proto).

#include "base/result.h"
#include "state/state_unit.h"

#include <cstdint>

namespace godwit::virtio {

inline constexpr state::SectionType balloon_section{"virtio-balloon", 1};

struct BalloonState {
    std::uint32_t target_pages = 0;
    std::uint32_t actual_pages = 0;
};

[[nodiscard]] state::Section save_balloon(const BalloonState& state, std::uint32_t instance);
/// `ram_pages` bounds the target; what the driver claims as actual is its own business.
[[nodiscard]] Result<BalloonState> load_balloon(const state::Section& section,
                                                std::uint64_t ram_pages);

} // namespace godwit::virtio
