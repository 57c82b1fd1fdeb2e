#include "handover/report.h"

#include <nlohmann/json.hpp>

namespace godwit::handover {

std::string_view name_of(Outcome outcome) noexcept {
    switch (outcome) {
    case Outcome::done:
        return "done";
    case Outcome::rolled_back:
        return "rolled_back";
    case Outcome::failed_after_commit:
        return "failed_after_commit";
    }
    return "unknown";
}

void Report::take_times(const PhaseTimes& times) noexcept {
    for (std::size_t i = 0; i < phase_count; ++i) {
        const auto duration = times.of(static_cast<Phase>(i));
        phase_us[i] = std::chrono::duration_cast<std::chrono::microseconds>(duration).count();
    }
}

void Report::fail(Outcome how,
                  std::string_view step,
                  std::string_view failed_side,
                  const Error& error) {
    outcome = how;
    failed_step = step;
    side = failed_side;
    reason = error.to_string();
    error_code = name_of(error.code());
}

std::string to_json(const Report& report) {
    nlohmann::ordered_json phases;
    for (std::size_t i = 0; i < phase_count; ++i) {
        phases[std::string(name_of(static_cast<Phase>(i)))] = report.phase_us[i];
    }
    nlohmann::ordered_json resources = nlohmann::ordered_json::array();
    for (const CarriedResource& carried : report.resources) {
        resources.push_back({{"resource", carried.resource},
                             {"carrier", carried.carrier},
                             {"bytes_copied", carried.bytes_copied}});
    }
    nlohmann::ordered_json parts = nlohmann::ordered_json::array();
    for (const auto& [what, time_us] : report.blackout_parts_us) {
        parts.push_back({{"part", what}, {"us", time_us}});
    }
    nlohmann::ordered_json calls = nlohmann::ordered_json::object();
    for (const auto& [name, count] : report.inverse_calls) {
        calls[name] = count;
    }
    nlohmann::ordered_json json = {
        {"operation", report.operation},
        {"machine", report.machine},
        {"outcome", name_of(report.outcome)},
        {"build_ids", {report.source_build_id, report.destination_build_id}},
        {"owners", {to_string(report.before.owner), to_string(report.after.owner)}},
        {"epochs", {report.before.epoch, report.after.epoch}},
        {"phases_us", phases},
        {"blackout_us", report.blackout_us},
        {"blackout_parts_us", parts},
        {"resources", resources},
        {"guest_bytes_copied", report.guest_bytes_copied},
        {"state_bytes", report.state_bytes},
        {"warmed_bytes", report.warmed_bytes},
        {"second_level_warmed", report.second_level_warmed},
        {"devices_ahead", report.devices_ahead},
        {"timing", name_of(report.timing)},
        {"fetched_bytes", report.fetched.bytes},
        {"demand_faults", report.fetched.demand_faults},
        {"inverse_calls", calls},
        {"frames_sampled", report.frames_sampled},
        {"frames_identical", report.frames_identical},
    };
    if (report.outcome != Outcome::done) {
        json["failed_step"] = report.failed_step;
        json["side"] = report.side;
        json["reason"] = report.reason;
        json["error_code"] = report.error_code;
        json["blockers"] = report.blockers;
    }
    // Text from a peer may hold bytes that are not UTF-8; they are replaced, never thrown at.
    return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

} // namespace godwit::handover
