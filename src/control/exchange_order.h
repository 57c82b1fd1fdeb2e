#pragma once

/// In which order, and how many at a time, the machines of a host are exchanged. Pure functions;
/// any thread.

#include "base/result.h"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace godwit::control {

enum class ExchangeOrder : std::uint8_t { name, smallest_first, largest_first, idle_first };
[[nodiscard]] std::string_view name_of(ExchangeOrder order) noexcept;
/// invalid_argument listing the names.
[[nodiscard]] Result<ExchangeOrder> exchange_order_named(std::string_view name);

/// What the order looks at.
struct OrderedMachine {
    std::string name;
    std::uint64_t memory_bytes = 0;
    /// Processors its VMM has used since it started: 1.0 is one of them all the time.
    double processors_used = 0;
};
/// Equal ones stand in order of their names.
void put_in_order(std::vector<OrderedMachine>& machines, ExchangeOrder order);

/// Machines under exchange at a time where nobody says otherwise: building a machine takes a
/// processor for a moment, so that only a host with many of them builds several.
inline constexpr unsigned concurrency_max = 64;
[[nodiscard]] unsigned default_concurrency(unsigned host_processors) noexcept;

} // namespace godwit::control
