#include "control/exchange_plan.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace godwit::control {

namespace {

/// What is taken of a VMM's answer.
constexpr std::size_t blockers_max = 64;
constexpr std::size_t carriers_max = 16;

Json text_or_null(const std::string& text) {
    return text.empty() ? Json() : Json(text);
}

Json json_of(const MachinePlan& plan, const ExchangePlan& all) {
    Json carriers = Json::array();
    for (const auto& [resource, carrier] : plan.carriers) {
        carriers.push_back({{"resource", resource}, {"carrier", carrier}});
    }
    Json body{{"machine", plan.machine.name},
              {"action", name_of(plan.action)},
              {"state", plan.state},
              {"mode", name_of(all.mode)},
              {"program", all.program},
              {"build_ids", {text_or_null(plan.build_id), text_or_null(all.build_id)}},
              {"memory_bytes", plan.machine.memory_bytes},
              {"carriers", std::move(carriers)},
              {"expected_blackout_us", nullptr},
              {"expected_from", "unknown"},
              {"expected_exchanges", 0},
              {"checked", plan.checked},
              {"blockers", plan.blockers}};
    if (plan.expected.has_value()) {
        body["expected_blackout_us"] = plan.expected->median_us;
        body["expected_from"] = plan.expected->of_this_machine ? "machine" : "host";
        body["expected_exchanges"] = plan.expected->exchanges;
    }
    return body;
}

} // namespace

std::string_view name_of(PlannedAction action) noexcept {
    switch (action) {
    case PlannedAction::exchange:
        return "exchange";
    case PlannedAction::nothing:
        return "nothing";
    case PlannedAction::refused:
        return "refused";
    }
    return "unknown";
}

std::size_t ExchangePlan::count(PlannedAction action) const noexcept {
    return static_cast<std::size_t>(std::ranges::count(machines, action, &MachinePlan::action));
}

Json json_of(const ExchangePlan& plan) {
    Json machines = Json::array();
    for (const MachinePlan& machine : plan.machines) {
        machines.push_back(json_of(machine, plan));
    }
    return {{"operation", "exchange-plan"},
            {"mode", name_of(plan.mode)},
            {"order", name_of(plan.order)},
            {"concurrency", plan.concurrency},
            {"program", plan.program},
            {"build_id", text_or_null(plan.build_id)},
            {"version", text_or_null(plan.version)},
            {"trouble", text_or_null(plan.trouble)},
            {"counts",
             {{"exchange", plan.count(PlannedAction::exchange)},
              {"nothing", plan.count(PlannedAction::nothing)},
              {"refused", plan.count(PlannedAction::refused)}}},
            {"machines", std::move(machines)}};
}

void read_answer(MachinePlan& machine, const Json& answer) {
    machine.build_id = text_member(answer, "build_id", machine.build_id);
    const std::uint64_t uptime_us = number_member(answer, "uptime_us");
    if (uptime_us > 0) {
        machine.machine.processors_used =
            static_cast<double>(number_member(answer, "cpu_us")) / static_cast<double>(uptime_us);
    }
    const auto list = [&](const char* name) {
        return answer.is_object() && answer.contains(name) && answer[name].is_array()
                   ? answer[name]
                   : Json::array();
    };
    for (const Json& blocker : list("blockers")) {
        if (machine.blockers.size() < blockers_max) {
            machine.blockers.push_back(blocker.is_string()
                                           ? blocker.get<std::string>().substr(0, 1024)
                                           : "its VMM answers nonsense");
        }
    }
    for (const Json& carrier : list("carriers")) {
        if (machine.carriers.size() < carriers_max) {
            machine.carriers.emplace_back(text_member(carrier, "resource"),
                                          text_member(carrier, "carrier"));
        }
    }
}

} // namespace godwit::control
