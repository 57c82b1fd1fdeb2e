#pragma once

/// What became of an exchange of all machines: the report of each and one for all of them
/// (docs/reports.md). Values; any thread.

#include "control/json_text.h"

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace godwit::control {

/// How a machine can come out of it: the outcomes of its own report, or that it was not touched.
enum class MachineOutcome : std::uint8_t {
    waiting,
    under_way,
    done,
    rolled_back,
    failed_after_commit,
    lost,
    refused,   ///< Something spoke against it; it was not touched.
    current,   ///< It ran the new build already.
    not_tried, ///< Stopped or cancelled before its turn.
};
inline constexpr std::size_t machine_outcome_count = 9;
[[nodiscard]] std::string_view name_of(MachineOutcome outcome) noexcept;
/// Of a machine's own report; rolled_back for what is not known, which promises nothing new.
[[nodiscard]] MachineOutcome outcome_named(std::string_view name) noexcept;

struct MachineResult {
    std::string machine;
    MachineOutcome outcome = MachineOutcome::waiting;
    std::string phase;
    std::array<std::string, 2> build_ids;
    std::int64_t blackout_us = -1; ///< -1: it did not stand still, or was paused.
    std::int64_t total_us = 0;
    std::string reason; ///< Why it is not done.
};
[[nodiscard]] Json json_of(const MachineResult& result);

struct ExchangeAllSummary {
    std::string mode;
    std::string program;
    std::string build_id;
    std::string order;
    unsigned concurrency = 1;
    std::int64_t total_us = 0;
    bool cancelled = false;
};
/// "done", "partial", "rolled_back", "failed_after_commit" or "lost": the worst first.
[[nodiscard]] std::string_view total_outcome(std::span<const MachineResult> machines) noexcept;
/// The total report, with every machine.
[[nodiscard]] Json total_report(const ExchangeAllSummary& summary,
                                std::span<const MachineResult> machines);
/// The machines by phase while it runs: member "progress" of the operation.
[[nodiscard]] Json progress_of(std::span<const MachineResult> machines);

/// The value that `part` of all values (0..1) do not exceed, by nearest rank; -1 of none.
[[nodiscard]] std::int64_t percentile(std::vector<std::int64_t> values, double part);
/// p50, p99 and max of the blackouts, microseconds; null where there is none.
[[nodiscard]] Json blackout_summary(const std::vector<std::int64_t>& values);

} // namespace godwit::control
