#include "cli/disk_fleet_command.h"

#include "cli/disk_fleet_text.h"
#include "cli/live_table.h"
#include "cli/operate.h"
#include "cli/run_flags.h"
#include "cli/size_text.h"

#include <nlohmann/json.hpp>

namespace godwit::cli {

namespace {

using control::Json;
using control::text_member;

constexpr LiveRows disk_rows{.list = "disks",
                             .name =
                                 [](const Json& disk) {
                                     return text_member(disk, "machine") + ":" +
                                            text_member(disk, "disk");
                                 },
                             .end = [](const Json& disk) -> std::string {
                                 const Json time = disk.value("duration_us", Json());
                                 return time.is_number_integer()
                                            ? " by " + text_member(disk, "scheme") + " in " +
                                                  duration_text(time.get<std::int64_t>())
                                            : "";
                             },
                             .lines = disk_fleet_lines};

Json body_of(const DiskFleetCommand& command) {
    Json directories = Json::array();
    for (const std::string& directory : command.directories) {
        directories.push_back(absolute_path(directory));
    }
    Json body{{"to", std::move(directories)},
              {"limit_bytes_per_second", command.limit_bytes_per_second},
              {"gamma", command.gamma},
              {"unsafe", command.unsafe},
              {"dry_run", command.dry_run},
              {"keep_going", command.keep_going}};
    if (!command.machine.empty()) {
        body["machine"] = command.machine;
    }
    if (command.concurrency != 0) {
        body["concurrency"] = command.concurrency;
    }
    return body;
}

} // namespace

ExitCode move_disks(const Session& session, const DiskFleetCommand& command) {
    const Result<DaemonClient> daemon =
        command.machine.empty() ? session.daemon() : daemon_for(session, command.machine);
    Result<Json> operation = daemon.has_value()
                                 ? daemon->put("/api/v1/disks/move", body_of(command))
                                 : Result<Json>(daemon.error());
    if (operation.has_value()) {
        LiveTable table(session, disk_rows);
        operation = follow(
            session, *daemon, std::move(*operation), [&](const Json& now) { table.show(now); });
        if (!operation.has_value()) {
            session.note("moves that had begun go on without godwitd: see 'godwit disk list "
                         "MACHINE'; say the same again for the others once those are over");
        }
    }
    const auto text_of = command.dry_run ? disk_fleet_plan_text : disk_fleet_text;
    if (operation.has_value() && !session.json && operation->value("result", Json()).is_object() &&
        exit_code_of_operation(*operation) != ExitCode::done) {
        session.print(Json(), text_of((*operation)["result"])); // The error comes below it.
    }
    return conclude(session, operation, text_of);
}

} // namespace godwit::cli
