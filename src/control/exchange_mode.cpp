#include "control/exchange_mode.h"

#include <algorithm>
#include <array>
#include <string>

namespace godwit::control {

namespace {

/// In order of the enumeration.
constexpr std::array<ExchangeModeEntry, 3> modes{{
    {.mode = ExchangeMode::hot_restart, .name = "hot-restart", .built = true},
    {.mode = ExchangeMode::suspend, .name = "suspend", .built = false},
    {.mode = ExchangeMode::partition, .name = "partition", .built = false},
}};

} // namespace

std::span<const ExchangeModeEntry> exchange_modes() noexcept {
    return modes;
}

std::string_view name_of(ExchangeMode mode) noexcept {
    return modes[static_cast<std::size_t>(mode)].name;
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
    if (modes[static_cast<std::size_t>(mode)].built) {
        return ok();
    }
    return Error(ErrorCode::unsupported,
                 "the exchange mode '" + std::string(name_of(mode)) +
                     "' is not built into this version");
}

} // namespace godwit::control
