#include "cli/operate.h"

#include "control/run_directory.h"

#include <nlohmann/json.hpp>

namespace godwit::cli {

using control::Json;

Result<DaemonClient> daemon_for(const Session& session, const std::string& name) {
    GODWIT_TRY(control::check_machine_name(name));
    return session.daemon();
}

ExitCode put_and_print(const Session& session,
                       const std::string& name,
                       const std::string& action,
                       const Json& body,
                       const std::string& text) {
    const Result<DaemonClient> daemon = daemon_for(session, name);
    const Result<Json> answer = daemon.has_value()
                                    ? daemon->put("/api/v1/machines/" + name + "/" + action, body)
                                    : Result<Json>(daemon.error());
    if (!answer.has_value()) {
        return session.fail(answer.error());
    }
    session.print(*answer, text);
    return ExitCode::done;
}

ExitCode operate(const Session& session,
                 const Result<DaemonClient>& daemon,
                 const std::string& path,
                 const Json& body,
                 std::string (*text_of)(const Json& result)) {
    Result<Json> operation =
        daemon.has_value() ? daemon->put(path, body) : Result<Json>(daemon.error());
    if (operation.has_value()) {
        operation = follow(session, *daemon, std::move(*operation));
    }
    return conclude(session, operation, text_of);
}

ExitCode conclude(const Session& session,
                  const Result<Json>& operation,
                  std::string (*text_of)(const Json& result)) {
    if (!operation.has_value()) {
        return session.fail(operation.error());
    }
    const ExitCode code = exit_code_of_operation(*operation);
    const Json result = operation->value("result", Json());
    if (code == ExitCode::done) {
        session.print(result, text_of(result));
        return code;
    }
    if (session.json && result.is_object()) {
        session.print(result, "");
    }
    return session.fail(control::error_of(operation->value("error", Json())), code);
}

} // namespace godwit::cli
