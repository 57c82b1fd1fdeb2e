#pragma once

/// The saved form of a console (section "virtio-console", state/virtio_console.proto).

#include "base/result.h"
#include "state/state_unit.h"

#include <cstdint>
#include <string>

namespace godwit::virtio {

inline constexpr state::SectionType console_section{"virtio-console", 1};

/// Bytes from the operator that wait for guest buffers, at most.
inline constexpr std::size_t console_pending_bytes_max = 4096;

struct ConsoleSize {
    std::uint16_t cols = 80;
    std::uint16_t rows = 25;
    friend bool operator==(const ConsoleSize&, const ConsoleSize&) = default;
};

struct ConsoleState {
    ConsoleSize size{};
    std::string pending_input{};
};

[[nodiscard]] state::Section save_console(const ConsoleState& state, std::uint32_t instance);
[[nodiscard]] Result<ConsoleState> load_console(const state::Section& section);

} // namespace godwit::virtio
