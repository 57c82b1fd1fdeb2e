#include "control/exchange_order.h"

#include <algorithm>
#include <array>
#include <tuple>

namespace godwit::control {

namespace {

/// In order of the enumeration.
constexpr std::array<std::string_view, 4> names{
    "name", "smallest-first", "largest-first", "idle-first"};

} // namespace

std::string_view name_of(ExchangeOrder order) noexcept {
    return names[static_cast<std::size_t>(order)];
}

Result<ExchangeOrder> exchange_order_named(std::string_view name) {
    const auto* const found = std::ranges::find(names, name);
    if (found == names.end()) {
        return Error(ErrorCode::invalid_argument,
                     "request: /order is '" + std::string(name.substr(0, 40)) +
                         "': must be one of name, smallest-first, largest-first, idle-first");
    }
    return static_cast<ExchangeOrder>(found - names.begin());
}

void put_in_order(std::vector<OrderedMachine>& machines, ExchangeOrder order) {
    std::ranges::sort(machines, [order](const OrderedMachine& a, const OrderedMachine& b) {
        switch (order) {
        case ExchangeOrder::name:
            break;
        case ExchangeOrder::smallest_first:
            return std::tie(a.memory_bytes, a.name) < std::tie(b.memory_bytes, b.name);
        case ExchangeOrder::largest_first:
            return std::tie(b.memory_bytes, a.name) < std::tie(a.memory_bytes, b.name);
        case ExchangeOrder::idle_first:
            return std::tie(a.processors_used, a.name) < std::tie(b.processors_used, b.name);
        }
        return a.name < b.name;
    });
}

unsigned default_concurrency(unsigned host_processors) noexcept {
    return std::clamp(host_processors / 4, 1U, 8U);
}

} // namespace godwit::control
