#include "control/exchange_mode.h"

#include <algorithm>
#include <array>
#include <string>

namespace godwit::control {

namespace {

/// In order of the enumeration.
constexpr std::array<ExchangeModeEntry, 3> modes{{
    {.mode = ExchangeMode::hot_restart, .name = "hot-restart", .reach = ExchangeReach::machine},
    {.mode = ExchangeMode::suspend, .name = "suspend", .reach = ExchangeReach::whole_host},
    {.mode = ExchangeMode::partition, .name = "partition", .reach = ExchangeReach::all_machines},
}};

const ExchangeModeEntry& entry_of(ExchangeMode mode) noexcept {
    return modes[static_cast<std::size_t>(mode)];
}

} // namespace

std::span<const ExchangeModeEntry> exchange_modes() noexcept {
    return modes;
}

std::string_view name_of(ExchangeMode mode) noexcept {
    return entry_of(mode).name;
}

Result<ExchangeMode> exchange_mode_named(std::string_view name) {
    const auto* const found = std::ranges::find(modes, name, &ExchangeModeEntry::name);
    if (found != modes.end()) {
        return found->mode;
    }
    std::string names;
    for (const ExchangeModeEntry& entry : modes) {
        names.append(names.empty() ? "" : ", ").append(entry.name);
    }
    return Error(ErrorCode::invalid_argument,
                 "request: /mode is '" + std::string(name.substr(0, 40)) + "': must be one of " +
                     names);
}

Status check_built(ExchangeMode mode) {
    if (entry_of(mode).reach != ExchangeReach::absent) {
        return ok();
    }
    return Error(ErrorCode::unsupported,
                 "the exchange mode '" + std::string(name_of(mode)) +
                     "' is not built into this version");
}

Status check_reach(ExchangeMode mode, ExchangeReach asked) {
    GODWIT_TRY(check_built(mode));
    const ExchangeReach reach = entry_of(mode).reach;
    if (reach == ExchangeReach::machine || reach == asked) {
        return ok();
    }
    return Error(ErrorCode::invalid_argument,
                 "the exchange mode '" + std::string(name_of(mode)) +
                     "' replaces programs of the whole host and has a request of its own: use "
                     "'godwit exchange --all --mode " +
                     std::string(name_of(mode)) + "'");
}

} // namespace godwit::control
