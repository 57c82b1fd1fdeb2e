#include "block/move/disk_move.h"

#include <nlohmann/json.hpp>

namespace godwit::block {

namespace {

using Json = nlohmann::json;

constexpr std::size_t path_bytes_max = 4095; // PATH_MAX

Json microseconds(sys::Nanoseconds time) {
    return std::chrono::duration_cast<std::chrono::microseconds>(time).count();
}

Json json_of(const DeviceSpeed& speed) {
    const auto rounded = [](double value) { return static_cast<std::uint64_t>(value); };
    return {{"read_bytes_per_second", rounded(speed.read_bytes_per_second)},
            {"write_bytes_per_second", rounded(speed.write_bytes_per_second)},
            {"read_us", rounded(speed.read_latency_seconds * 1e6)},
            {"write_us", rounded(speed.write_latency_seconds * 1e6)},
            {"wear_weight", speed.wear_weight}};
}

Json json_of(const SchemeEstimate& estimate, Scheme chosen) {
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
    for (const SchemeEstimate& estimate : findings.estimates) {
        estimates.push_back(json_of(estimate, findings.choice.scheme));
    }
    const Workload& load = findings.situation.workload;
    return {{"why", findings.choice.why},
            {"gamma", findings.situation.gamma},
            {"source", json_of(findings.situation.source)},
            {"destination", json_of(findings.situation.destination)},
            {"guest",
             {{"reads_per_second", static_cast<std::uint64_t>(load.reads)},
              {"read_bytes_per_second", static_cast<std::uint64_t>(load.read_bytes)},
              {"writes_per_second", static_cast<std::uint64_t>(load.writes)},
              {"written_bytes_per_second", static_cast<std::uint64_t>(load.written_bytes)},
              {"working_set_bytes", static_cast<std::uint64_t>(load.working_set_bytes)},
              {"hot_bytes", static_cast<std::uint64_t>(load.hot_bytes)},
              {"hot_share", load.hot_share}}},
            {"estimates", std::move(estimates)}};
}

Json json_of(const WrittenBytes& bytes) {
    return {
        {"guest", bytes.guest}, {"first_copy", bytes.first_copy}, {"redundant", bytes.redundant}};
}

std::string_view name_of(MoveOutcome outcome) noexcept {
    switch (outcome) {
    case MoveOutcome::moved:
        return "moved";
    case MoveOutcome::cancelled:
        return "cancelled";
    case MoveOutcome::stranded:
        break;
    }
    return "stranded";
}

void add_report(Json& document, const MoveReport& report) {
    const bool moved = report.outcome == MoveOutcome::moved;
    const bool asked_to_stop =
        report.reason.has_value() && report.reason->code() == ErrorCode::cancelled;
    document["operation"] = "disk-move";
    document["outcome"] = moved || asked_to_stop ? name_of(report.outcome) : "failed";
    document["complete"] = moved ? "destination" : "source";
    document["scheme"] = name_of(report.ended_as);
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

void add_progress(Json& document, const MoveProgress& progress) {
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
                  {"estimate", state.estimate_only},
                  {"scheme", name_of(state.scheme)},
                  {"scheme_changes", state.changes},
                  {"safe", state.safe},
                  {"phase", state.phase},
                  {"choice", state.findings.has_value() ? json_of(*state.findings) : Json()}};
    if (state.report.has_value()) {
        add_report(document, *state.report);
        if (state.estimate_only && state.findings.has_value()) {
            document["outcome"] = "estimated";
        }
    } else {
        add_progress(document, state.progress);
    }
    return document.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<DiskMoveRequest> parse_disk_move_request(std::string_view text) {
    const Json params = Json::parse(text, nullptr, false);
    if (!params.is_object()) {
        return Error(ErrorCode::invalid_argument, "the parameters must be an object");
    }
    DiskMoveRequest request;
    const std::pair<const char*, std::string*> texts[] = {{"disk", &request.disk},
                                                          {"destination", &request.destination},
                                                          {"scheme", &request.scheme}};
    for (const auto& [key, value] : texts) {
        if (!params.contains(key) || !params[key].is_string() ||
            params[key].get_ref<const std::string&>().size() > path_bytes_max) {
            return Error(ErrorCode::invalid_argument,
                         std::string("the parameter \"") + key + "\" must be a text");
        }
        *value = params[key].get<std::string>();
    }
    const Json limit = params.value("limit_bytes_per_second", Json(0U));
    const Json gamma = params.value("gamma", Json(request.gamma));
    if (!limit.is_number_unsigned() || !gamma.is_number()) {
        return Error(ErrorCode::invalid_argument,
                     "\"limit_bytes_per_second\" and \"gamma\" must be numbers not below 0");
    }
    const std::pair<const char*, bool*> flags[] = {
        {"unsafe", &request.unsafe},
        {"must_make", &request.must_make},
        {"reads_from_destination", &request.reads_from_destination}};
    for (const auto& [key, flag] : flags) {
        const Json value = params.value(key, Json(false));
        if (!value.is_boolean()) {
            return Error(ErrorCode::invalid_argument,
                         std::string("the parameter \"") + key + "\" must be true or false");
        }
        *flag = value.get<bool>();
    }
    request.limit_bytes_per_second = limit.get<std::uint64_t>();
    request.gamma = gamma.get<double>();
    return request;
}

Status validate(const DiskMoveRequest& request) {
    if (request.scheme != "auto" && !parse_scheme(request.scheme).has_value()) {
        return Error(ErrorCode::invalid_argument,
                     "there is no scheme '" + request.scheme.substr(0, 40) +
                         "': say auto, dbt, mirror, lr, slr, aio or tiered");
    }
    if (request.unsafe && request.scheme != name_of(Scheme::lr)) {
        return Error(ErrorCode::invalid_argument,
                     "only scheme lr can be unsafe: the others keep the source complete anyway");
    }
    if (request.estimate_only && request.scheme != "auto") {
        return Error(ErrorCode::invalid_argument, "only with scheme auto is there an estimate");
    }
    if (!(request.gamma >= 0 && request.gamma <= 1)) {
        return Error(ErrorCode::invalid_argument,
                     "gamma must lie between 0 (the guest's speed) and 1 (wear)");
    }
    return ok();
}

} // namespace godwit::block
