#include "doors/exchange/report.h"

#include <nlohmann/json.hpp>

namespace godwit::doors::exchange {

namespace {

nlohmann::json json_of(const Report::Side& side) {
    return {{"program", side.program},
            {"pid", side.pid},
            {"version", side.version},
            {"build_id", side.build_id}};
}

} // namespace

std::string_view name_of(Outcome outcome) noexcept {
    switch (outcome) {
    case Outcome::done:
        return "done";
    case Outcome::rolled_back:
        return "rolled_back";
    case Outcome::failed_after_commit:
        break;
    }
    return "failed_after_commit";
}

nlohmann::json to_json(const Report& report) {
    nlohmann::json parts = nlohmann::json::array();
    for (const auto& [part, microseconds] : report.pause_parts_us) {
        parts.push_back({{"part", part}, {"us", microseconds}});
    }
    nlohmann::json document{{"operation", "disk-exchange"},
                            {"export", report.name},
                            {"outcome", name_of(report.outcome)},
                            {"from", json_of(report.from)},
                            {"to", json_of(report.to)},
                            {"nbd_clients", report.nbd_clients},
                            {"front_ends", report.front_ends},
                            {"carried_bytes", report.carried_bytes},
                            {"pause_us", report.pause_us},
                            {"pause_parts_us", std::move(parts)},
                            {"total_us", report.total_us}};
    if (report.outcome != Outcome::done) {
        document["failed_step"] = report.failed_step;
        document["reason"] = report.reason;
        document["error_code"] = report.error_code;
    }
    return document;
}

} // namespace godwit::doors::exchange
