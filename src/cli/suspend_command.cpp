#include "cli/suspend_command.h"

#include "cli/run_flags.h"
#include "cli/size_text.h"
#include "sys/entropy.h"

#include <nlohmann/json.hpp>

#include <array>
#include <cstdio>
#include <span>

namespace godwit::cli {

namespace {

using control::Json;
using control::number_member;
using control::text_member;

/// Machines may take this long after the old godwitd has gone (its successor gives up before).
constexpr std::chrono::milliseconds end_time_max{60'000};

Result<std::string> fresh_id() {
    std::uint32_t number = 0;
    GODWIT_TRY(sys::system_random().random_bytes(std::as_writable_bytes(std::span(&number, 1))));
    std::array<char, 9> text{};
    std::snprintf(text.data(), text.size(), "%08x", number);
    return std::string(text.data());
}

/// Each attempt reaches the old godwitd while it ends, or waits for the new one.
constexpr int attempts_max = 100;

/// What the new godwitd says about it; the old one has gone in between.
Result<Json> report_of(const Session& session, const std::string& id) {
    Result<Json> answer = Error(ErrorCode::peer_closed, "godwitd does not answer");
    for (int attempt = 0; attempt < attempts_max; ++attempt) {
        const DaemonClient daemon = GODWIT_TRY(session.daemon());
        answer = daemon.call("GET", "/api/v1/suspension", {}, end_time_max);
        if (answer.has_value() || (answer.error().code() != ErrorCode::peer_closed &&
                                   answer.error().code() != ErrorCode::cancelled)) {
            break;
        }
    }
    const Json report = GODWIT_TRY(std::move(answer));
    if (text_member(report, "id") != id) {
        return Error(ErrorCode::not_found,
                     "godwitd was replaced, but its successor knows nothing of this exchange; see "
                     "'godwit ps' and 'godwit recover'");
    }
    return report;
}

ExitCode told(const Session& session, const Json& report) {
    const std::string outcome = text_member(report, "outcome");
    if (outcome == "done") {
        session.print(report, suspension_text(report));
        return ExitCode::done;
    }
    if (session.json) {
        session.print(report, "");
    }
    const bool partial = outcome == "partial";
    return session.fail(
        Error(ErrorCode::conflict,
              (partial ? "not every machine runs: " : "the exchange was rolled back: ") +
                  text_member(report, "reason")),
        partial ? ExitCode::failed_after_commit : ExitCode::failed);
}

} // namespace

ExitCode suspend_exchange(const Session& session, const SuspendCommand& command) {
    const Result<DaemonClient> daemon = session.daemon();
    const Result<std::string> id = fresh_id();
    if (!daemon.has_value() || !id.has_value()) {
        return session.fail(daemon.has_value() ? id.error() : daemon.error());
    }
    Json body{{"id", *id}, {"prepare_ms", command.prepare_ms}};
    if (command.deadline_ms.has_value()) {
        body["deadline_ms"] = *command.deadline_ms;
    }
    if (command.concurrency > 0) {
        body["concurrency"] = command.concurrency;
    }
    if (!command.machine.empty()) {
        body["machine"] = command.machine;
    }
    if (!command.prefix.empty()) {
        body["to"] = absolute_path(command.prefix);
    }
    Result<Json> operation = daemon->put("/api/v1/suspension", body);
    if (!operation.has_value()) {
        return session.fail(operation.error());
    }
    operation = follow(session, *daemon, std::move(*operation));
    if (operation.has_value() && (*operation)["result"].is_object()) {
        const Json& result = (*operation)["result"];
        if (text_member(result, "outcome") == "rolled_back") {
            if (session.json) {
                session.print(result, "");
            }
            return session.fail(control::error_of((*operation)["error"]), ExitCode::failed);
        }
        return told(session, result);
    }
    // The godwitd that began it has gone, as it should.
    const Result<Json> report = report_of(session, *id);
    return report.has_value() ? told(session, *report) : session.fail(report.error());
}

std::string suspension_text(const Json& report) {
    std::string text;
    const Json machines = report.contains("machines") ? report["machines"] : Json::array();
    for (const Json& machine : machines) {
        text += text_member(machine, "machine") + ": " + text_member(machine, "outcome");
        if (machine.contains("blackout_us") && machine["blackout_us"].is_number_integer()) {
            text +=
                ", stood still for " + duration_text(machine["blackout_us"].get<std::int64_t>());
        }
        text += "\n";
    }
    const bool daemon = report.contains("daemon_replaced") && report["daemon_replaced"] == true;
    return text + std::to_string(machines.size()) + " machine(s) run in new VMMs" +
           (daemon ? ", and godwitd is the new one" : "") + "\n";
}

} // namespace godwit::cli
