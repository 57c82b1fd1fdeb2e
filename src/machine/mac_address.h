#pragma once

/// MAC addresses as text. Pure functions.

#include "base/result.h"

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace godwit::machine {

using MacBytes = std::array<std::uint8_t, 6>;

/// "52:54:00:12:34:56"; invalid_argument for anything else, and for a multicast address.
[[nodiscard]] Result<MacBytes> parse_mac_address(std::string_view text);
/// A locally administered address from a machine's name and the index of its network, the same at
/// every start.
[[nodiscard]] std::string derived_mac_address(std::string_view machine, std::size_t index);

} // namespace godwit::machine
