#pragma once

/// The ways in which a host puts new VMMs under its machines. One table: whoever builds a mode sets
/// its entry. Pure functions; any thread.

#include "base/result.h"

#include <cstdint>
#include <span>
#include <string_view>

namespace godwit::control {

enum class ExchangeMode : std::uint8_t {
    hot_restart, ///< A successor process is built while the guest runs, then takes over.
    suspend,     ///< All VMMs end with the state in memory, and new ones go on from it.
    partition,   ///< Two hypervisor instances side by side; machines move by pointers.
};

/// How a mode is reached.
enum class ExchangeReach : std::uint8_t {
    absent,       ///< This version knows the name and cannot do it.
    machine,      ///< Each machine has an exchange of its own.
    all_machines, ///< Only as an exchange of all machines.
    whole_host,   ///< One run with a request of its own replaces programs of the host.
};

struct ExchangeModeEntry {
    ExchangeMode mode;
    std::string_view name;
    ExchangeReach reach;
};
[[nodiscard]] std::span<const ExchangeModeEntry> exchange_modes() noexcept;
[[nodiscard]] std::string_view name_of(ExchangeMode mode) noexcept;
/// invalid_argument listing the names.
[[nodiscard]] Result<ExchangeMode> exchange_mode_named(std::string_view name);
/// unsupported if this version cannot do it.
[[nodiscard]] Status check_built(ExchangeMode mode);
/// Likewise, and invalid_argument if a request for `asked` is not how it is reached.
[[nodiscard]] Status check_reach(ExchangeMode mode, ExchangeReach asked);

} // namespace godwit::control
