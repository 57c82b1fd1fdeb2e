#pragma once

/// Why a guest stopped by itself. A value.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace godwit::machine {

/// Why the guest stopped by itself. `rebooted`: it asked for a reset; the caller decides whether to
/// build the machine anew.
enum class StopReason : std::uint8_t { powered_off, rebooted, triple_fault, internal_error };

/// As it stands in events and JSON ("powered_off").
[[nodiscard]] std::string_view name_of(StopReason reason) noexcept;

/// Called by whoever notices; any thread, may not block.
using StopSink = std::function<void(StopReason reason, std::string detail)>;

} // namespace godwit::machine
