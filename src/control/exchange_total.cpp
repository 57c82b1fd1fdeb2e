#include "control/exchange_total.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>

namespace godwit::control {

namespace {

/// In order of the enumeration.
constexpr std::array<std::string_view, machine_outcome_count> names{"waiting",
                                                                    "under_way",
                                                                    "done",
                                                                    "rolled_back",
                                                                    "failed_after_commit",
                                                                    "lost",
                                                                    "refused",
                                                                    "current",
                                                                    "not_tried"};

using Counts = std::array<std::size_t, machine_outcome_count>;

Counts count(std::span<const MachineResult> machines) {
    Counts counts{};
    for (const MachineResult& machine : machines) {
        ++counts[static_cast<std::size_t>(machine.outcome)];
    }
    return counts;
}

std::size_t of(const Counts& counts, MachineOutcome outcome) {
    return counts[static_cast<std::size_t>(outcome)];
}

Json json_of(const Counts& counts) {
    Json body = Json::object();
    for (std::size_t i = 0; i < names.size(); ++i) {
        body[std::string(names[i])] = counts[i];
    }
    return body;
}

Json number_or_null(std::int64_t value) {
    return value < 0 ? Json() : Json(value);
}

} // namespace

std::string_view name_of(MachineOutcome outcome) noexcept {
    return names[static_cast<std::size_t>(outcome)];
}

MachineOutcome outcome_named(std::string_view name) noexcept {
    for (const MachineOutcome outcome :
         {MachineOutcome::done, MachineOutcome::failed_after_commit, MachineOutcome::lost}) {
        if (name_of(outcome) == name) {
            return outcome;
        }
    }
    return MachineOutcome::rolled_back;
}

Json json_of(const MachineResult& result) {
    Json body{{"machine", result.machine},
              {"outcome", name_of(result.outcome)},
              {"phase", result.phase},
              {"build_ids", {result.build_ids[0], result.build_ids[1]}},
              {"blackout_us", number_or_null(result.blackout_us)},
              {"total_us", result.total_us}};
    if (!result.reason.empty()) {
        body["reason"] = result.reason;
    }
    return body;
}

std::string_view total_outcome(std::span<const MachineResult> machines) noexcept {
    const Counts counts = count(machines);
    if (of(counts, MachineOutcome::lost) > 0) {
        return "lost";
    }
    if (of(counts, MachineOutcome::failed_after_commit) > 0) {
        return "failed_after_commit";
    }
    const std::size_t done = of(counts, MachineOutcome::done);
    if (done + of(counts, MachineOutcome::current) == machines.size()) {
        return "done";
    }
    return done > 0 ? "partial" : "rolled_back";
}

std::int64_t percentile(std::vector<std::int64_t> values, double part) {
    if (values.empty()) {
        return -1;
    }
    std::ranges::sort(values);
    const double rank = std::ceil(std::clamp(part, 0.0, 1.0) * static_cast<double>(values.size()));
    return values[static_cast<std::size_t>(std::max(rank, 1.0)) - 1];
}

Json blackout_summary(const std::vector<std::int64_t>& values) {
    return {{"p50", number_or_null(percentile(values, 0.5))},
            {"p99", number_or_null(percentile(values, 0.99))},
            {"max", number_or_null(percentile(values, 1.0))}};
}

Json total_report(const ExchangeAllSummary& summary, std::span<const MachineResult> machines) {
    std::vector<std::int64_t> blackouts;
    Json list = Json::array();
    const MachineResult* slowest = nullptr;
    for (const MachineResult& machine : machines) {
        if (machine.outcome == MachineOutcome::done && machine.blackout_us >= 0) {
            blackouts.push_back(machine.blackout_us);
        }
        if (machine.total_us > 0 && (slowest == nullptr || machine.total_us > slowest->total_us)) {
            slowest = &machine;
        }
        list.push_back(json_of(machine));
    }
    Json report{{"operation", "exchange-all"},
                {"outcome", total_outcome(machines)},
                {"cancelled", summary.cancelled},
                {"mode", summary.mode},
                {"program", summary.program},
                {"build_id", summary.build_id},
                {"order", summary.order},
                {"concurrency", summary.concurrency},
                {"counts", json_of(count(machines))},
                {"blackout_us", blackout_summary(blackouts)},
                {"total_us", summary.total_us},
                {"slowest", nullptr},
                {"machines", std::move(list)}};
    if (slowest != nullptr) {
        report["slowest"] = {{"machine", slowest->machine}, {"total_us", slowest->total_us}};
    }
    return report;
}

Json progress_of(std::span<const MachineResult> machines) {
    Json list = Json::array();
    for (const MachineResult& machine : machines) {
        Json row{{"machine", machine.machine}, {"outcome", name_of(machine.outcome)}};
        if (machine.outcome == MachineOutcome::under_way) {
            row["phase"] = machine.phase;
        }
        if (machine.blackout_us >= 0) {
            row["blackout_us"] = machine.blackout_us;
        }
        if (!machine.reason.empty()) {
            row["reason"] = machine.reason.substr(0, 200);
        }
        list.push_back(std::move(row));
    }
    return {{"counts", json_of(count(machines))}, {"machines", std::move(list)}};
}

} // namespace godwit::control
