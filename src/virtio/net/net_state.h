#pragma once

/// The saved form of a network device (section "virtio-net", state/virtio_net.proto).

#include "base/result.h"
#include "state/state_unit.h"

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace godwit::virtio {

inline constexpr state::SectionType net_section{"virtio-net", 1};

using MacAddress = std::array<std::uint8_t, 6>;

/// What the driver sees that is not in queues and features.
struct NetIdentity {
    MacAddress mac{};
    std::optional<std::uint16_t> mtu; ///< Offered to the driver if present.
    std::uint16_t queue_pairs = 1;
    friend bool operator==(const NetIdentity&, const NetIdentity&) = default;
};

struct NetState {
    NetIdentity identity{};
    std::uint16_t active_pairs = 1;
    bool announce_pending = false;
    std::vector<std::string> held{}; ///< One per queue pair; empty where no packet is held.
};

[[nodiscard]] state::Section save_net(const NetState& state, std::uint32_t instance);
/// Every limit and cross-check of the section itself; `expected` is what this machine has.
[[nodiscard]] Result<NetState> load_net(const state::Section& section, const NetIdentity& expected);

} // namespace godwit::virtio
