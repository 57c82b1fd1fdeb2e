#include "machine/devices/disk_move.h"

#include <nlohmann/json.hpp>

namespace godwit::machine {

namespace {

using Json = nlohmann::json;

Json microseconds(sys::Nanoseconds time) {
    return std::chrono::duration_cast<std::chrono::microseconds>(time).count();
}

Json json_of(const block::DeviceSpeed& speed) {
    const auto rounded = [](double value) { return static_cast<std::uint64_t>(value); };
    return {{"read_bytes_per_second", rounded(speed.read_bytes_per_second)},
            {"write_bytes_per_second", rounded(speed.write_bytes_per_second)},
            {"read_us", rounded(speed.read_latency_seconds * 1e6)},
            {"write_us", rounded(speed.write_latency_seconds * 1e6)},
            {"wear_weight", speed.wear_weight}};
}

Json json_of(const block::SchemeEstimate& estimate, block::Scheme chosen) {
    return {{"scheme", name_of(estimate.scheme)},
            {"cost", estimate.cost},
            {"time", estimate.parts.time},
            {"wear", estimate.parts.wear},
            {"io", estimate.parts.io},
            {"duration_us", static_cast<std::uint64_t>(estimate.bill.seconds * 1e6)},
            {"pause_us", static_cast<std::uint64_t>(estimate.pause_seconds * 1e6)},
            {"redundant_bytes", static_cast<std::uint64_t>(estimate.redundant_bytes)},
            {"ends", estimate.ends},
            {"chosen", estimate.scheme == chosen}};
}

Json json_of(const SchemeFindings& findings) {
    Json estimates = Json::array();
    for (const block::SchemeEstimate& estimate : findings.estimates) {
        estimates.push_back(json_of(estimate, findings.choice.scheme));
    }
    const block::Workload& load = findings.situation.workload;
    return {{"why", findings.choice.why},
            {"gamma", findings.situation.gamma},
            {"source", json_of(findings.situation.source)},
            {"destination", json_of(findings.situation.destination)},
            {"guest",
             {{"reads_per_second", static_cast<std::uint64_t>(load.reads)},
              {"writes_per_second", static_cast<std::uint64_t>(load.writes)},
              {"written_bytes_per_second", static_cast<std::uint64_t>(load.written_bytes)},
              {"working_set_bytes", static_cast<std::uint64_t>(load.working_set_bytes)},
              {"hot_bytes", static_cast<std::uint64_t>(load.hot_bytes)}}},
            {"estimates", std::move(estimates)}};
}

Json json_of(const block::WrittenBytes& bytes) {
    return {
        {"guest", bytes.guest}, {"first_copy", bytes.first_copy}, {"redundant", bytes.redundant}};
}

std::string_view name_of(block::MoveOutcome outcome) noexcept {
    switch (outcome) {
    case block::MoveOutcome::moved:
        return "moved";
    case block::MoveOutcome::cancelled:
        return "cancelled";
    case block::MoveOutcome::stranded:
        break;
    }
    return "stranded";
}

void add_report(Json& document, const block::MoveReport& report) {
    const bool moved = report.outcome == block::MoveOutcome::moved;
    const bool asked_to_stop =
        report.reason.has_value() && report.reason->code() == ErrorCode::cancelled;
    document["operation"] = "disk-move";
    document["outcome"] = moved || asked_to_stop ? name_of(report.outcome) : "failed";
    document["complete"] = moved ? "destination" : "source";
    document["scheme"] = block::name_of(report.ended_as);
    document["duration_us"] = microseconds(report.duration);
    document["pause_us"] = moved ? microseconds(report.pause) : Json();
    document["copy_back_us"] = moved ? Json() : microseconds(report.copy_back);
    document["written_bytes"] = {{"source", json_of(report.counters.source)},
                                 {"destination", json_of(report.counters.destination)}};
    document["last_pass_bytes"] = report.counters.last_pass_bytes;
    document["copied_back_bytes"] = report.counters.copied_back_bytes;
    document["source_failures"] = report.counters.source_failures;
    document["passes"] = report.passes.size();
    document["tracking_bytes"] = report.tracking_bytes;
    if (report.reason.has_value()) {
        document["reason"] = report.reason->to_string();
        document["error_code"] = godwit::name_of(report.reason->code());
    }
}

void add_progress(Json& document, const block::MoveProgress& progress) {
    document["total_bytes"] = progress.total_bytes;
    document["cursor_bytes"] = progress.cursor_bytes;
    document["copied_bytes"] = progress.copied_bytes;
    document["dirty_bytes"] = progress.dirty_bytes;
    document["deferred_bytes"] = progress.deferred_bytes;
    document["ahead_bytes"] = progress.ahead_bytes;
    document["copy_bytes_per_second"] = progress.copy_bytes_per_second;
    document["guest_bytes_per_second"] = progress.guest_bytes_per_second;
    document["remaining_us"] =
        progress.remaining.has_value() ? microseconds(*progress.remaining) : Json();
}

} // namespace

std::string to_json(const DiskMoveState& state) {
    Json document{{"id", state.id},
                  {"disk", state.disk},
                  {"source", state.source},
                  {"destination", state.destination},
                  {"destination_made", state.created},
                  {"asked", state.asked},
                  {"scheme", block::name_of(state.scheme)},
                  {"scheme_changes", state.changes},
                  {"safe", state.safe},
                  {"phase", state.phase},
                  {"choice", state.findings.has_value() ? json_of(*state.findings) : Json()}};
    if (state.report.has_value()) {
        add_report(document, *state.report);
    } else {
        add_progress(document, state.progress);
    }
    return document.dump(-1, ' ', false, Json::error_handler_t::replace);
}

} // namespace godwit::machine
