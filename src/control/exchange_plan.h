#pragma once

/// What an exchange of machines would do, found out before anything is touched. Values; the form
/// for users is in docs/reports.md.

#include "control/blackout_history.h"
#include "control/exchange_mode.h"
#include "control/exchange_order.h"
#include "control/json_text.h"

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace godwit::control {

enum class PlannedAction : std::uint8_t {
    exchange,
    nothing, ///< It runs the new build already.
    refused, ///< Something speaks against it: see its blockers.
};
[[nodiscard]] std::string_view name_of(PlannedAction action) noexcept;

struct MachinePlan {
    OrderedMachine machine;
    PlannedAction action = PlannedAction::exchange;
    std::string build_id; ///< Of its present VMM; empty if unknown.
    std::string state;
    std::vector<std::string> blockers;
    std::vector<std::pair<std::string, std::string>> carriers; ///< Resource and how it is carried.
    std::optional<BlackoutHistory::Expected> expected;
    bool checked = true; ///< False: its VMM is too old to be asked; the exchange itself checks.
};

struct ExchangePlan {
    ExchangeMode mode = ExchangeMode::hot_restart;
    ExchangeOrder order = ExchangeOrder::name;
    unsigned concurrency = 1;
    std::string program;
    std::string build_id; ///< Of the program; empty if it does not say.
    std::string version;
    std::string trouble;               ///< Why the program cannot be used at all.
    std::vector<MachinePlan> machines; ///< In the order in which they come.

    [[nodiscard]] std::size_t count(PlannedAction action) const noexcept;
};
[[nodiscard]] Json json_of(const ExchangePlan& plan);

/// Takes over what a machine's VMM answered to "plan"; everything in it is checked.
void read_answer(MachinePlan& machine, const Json& answer);

} // namespace godwit::control
