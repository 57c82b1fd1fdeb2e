#include "cli/export_commands.h"

#include "cli/disk_text.h"
#include "cli/export_client.h"
#include "cli/operate.h"

#include <nlohmann/json.hpp>

namespace godwit::cli {

namespace {

using control::Json;
using control::number_member;
using control::text_member;

/// How often progress is told.
constexpr std::chrono::milliseconds look_distance{500};
/// Of an exchange, beside the limits its server keeps to.
constexpr std::chrono::milliseconds exchange_patience = std::chrono::seconds(30);

Json member(const Json& object, const char* name) {
    return object.is_object() && object.contains(name) ? object[name] : Json();
}

/// The move `id` as godwitd would describe it, from an answer to "disks".
Result<Json> operation_of(const std::string& name, std::uint64_t id, const Json& answer) {
    const Json disks = member(answer, "disks");
    const Json disk = disks.is_array() && !disks.empty() ? disks[0] : Json();
    const Json move = member(disk, "move");
    Json operation{{"id", id}, {"kind", "disk-move"}, {"machine", name}};
    if (number_member(move, "id") == id) {
        operation["state"] = "running";
        operation["phase"] = text_member(move, "phase");
        operation["progress"] = move;
        return operation;
    }
    Json report = member(disk, "last_move");
    if (number_member(report, "id") != id) {
        return Error(ErrorCode::internal,
                     "the server knows nothing of this move any more; see 'godwit disk list " +
                         name + "'");
    }
    report["machine"] = name;
    const std::string outcome = text_member(report, "outcome");
    operation["state"] = outcome == "moved"       ? "succeeded"
                         : outcome == "cancelled" ? "cancelled"
                                                  : "failed";
    if (outcome != "moved") {
        operation["error"] = control::json_of(
            Error(control::error_code_named(text_member(report, "error_code")),
                  "the disk of '" + name + "' was not moved: " + text_member(report, "reason") +
                      "; complete is '" + text_member(report, "source") + "'"));
    }
    operation["result"] = std::move(report);
    return operation;
}

Result<Json> look(const ExportClient& server, std::uint64_t id) {
    return operation_of(server.name(), id, GODWIT_TRY(server.call("disks", Json::object())));
}

/// Follows the move `id` to its end.
Result<Json> follow_move(const Session& session, const ExportClient& server, std::uint64_t id) {
    const ExportClient events =
        GODWIT_TRY(ExportClient::connect(session.run_directory, server.name()));
    GODWIT_TRY(events.subscribe());
    const Following following{.next = [&](const Json&) -> Result<Json> {
                                  GODWIT_TRY(events.wait(look_distance));
                                  return look(server, id);
                              },
                              .cancel = [&]() -> Status {
                                  GODWIT_TRY(server.call("cancel_disk_move", Json::object()));
                                  return ok();
                              }};
    Result<Json> ended = follow(session, GODWIT_TRY(look(server, id)), following);
    if (!ended.has_value() && ended.error().code() == ErrorCode::peer_closed) {
        return Error(ErrorCode::peer_closed,
                     "the server of '" + server.name() +
                         "' ended while the disk was moving: the next one opens the image where "
                         "it is complete");
    }
    return ended;
}

Result<Json> start_and_follow(const Session& session, const std::string& name, Json request) {
    const ExportClient server = GODWIT_TRY(ExportClient::connect(session.run_directory, name));
    request["disk"] = "disk0";
    const Json begun = GODWIT_TRY(server.call("disk_move", request));
    return follow_move(session, server, number_member(begun, "id"));
}

Result<Json> cancel_and_follow(const Session& session, const std::string& name) {
    const ExportClient server = GODWIT_TRY(ExportClient::connect(session.run_directory, name));
    const Json answer = GODWIT_TRY(server.call("disks", Json::object()));
    const Json disks = member(answer, "disks");
    const Json move = disks.is_array() && !disks.empty() ? member(disks[0], "move") : Json();
    GODWIT_TRY(server.call("cancel_disk_move", Json::object()));
    return follow_move(session, server, number_member(move, "id"));
}

/// An exchange that has ended, as godwitd would describe it.
Result<Json>
exchange_and_wait(const Session& session, const std::string& name, const Json& request) {
    const ExportClient server = GODWIT_TRY(ExportClient::connect(session.run_directory, name));
    const std::chrono::milliseconds limits(number_member(request, "prepare_ms") +
                                           2 * number_member(request, "deadline_ms"));
    Result<Json> report = server.call("exchange", request, exchange_patience + limits);
    if (!report.has_value() && report.error().code() == ErrorCode::peer_closed) {
        return Error(ErrorCode::peer_closed,
                     "the server of '" + name + "' ended during the exchange: 'godwit disk list " +
                         name + "' tells whether another one serves it; if none does, start one");
    }
    GODWIT_TRY(report);
    const bool done = text_member(*report, "outcome") == "done";
    Json operation{{"kind", "disk-exchange"}, {"state", done ? "succeeded" : "failed"}};
    if (!done) {
        const bool served = text_member(*report, "outcome") == "rolled_back";
        operation["error"] = control::json_of(Error(
            control::error_code_named(text_member(*report, "error_code")),
            "the server of '" + name + "' was not exchanged: " + text_member(*report, "reason") +
                (served ? "; the old one serves on"
                        : "; the old one has ended: if no other serves it, start one")));
    }
    operation["result"] = std::move(*report);
    return operation;
}

} // namespace

ExitCode move_export(const Session& session, const std::string& name, const Json& request) {
    return conclude(session, start_and_follow(session, name, request), disk_move_text);
}

ExitCode cancel_export_move(const Session& session, const std::string& name) {
    const Result<Json> operation = cancel_and_follow(session, name);
    if (!operation.has_value() || text_member(*operation, "state") != "cancelled") {
        return conclude(session, operation, disk_move_text); // It was too late, or it failed.
    }
    const Json report = member(*operation, "result");
    session.print(report,
                  "the disk of " + name + " stays at '" + text_member(report, "source") + "'\n");
    return ExitCode::done;
}

ExitCode list_export(const Session& session, const std::string& name) {
    const Result<ExportClient> server = ExportClient::connect(session.run_directory, name);
    const Result<Json> answer =
        server.has_value() ? server->call("disks", Json::object()) : Result<Json>(server.error());
    if (!answer.has_value()) {
        return session.fail(answer.error());
    }
    session.print(*answer, disks_text(*answer) + export_metrics_text(member(*answer, "metrics")));
    return ExitCode::done;
}

ExitCode exchange_export(const Session& session, const std::string& name, const Json& request) {
    return conclude(session, exchange_and_wait(session, name, request), export_exchange_text);
}

} // namespace godwit::cli
