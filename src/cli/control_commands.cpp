/// pause, resume, stop, balloon; snapshot and recover.

#include "cli/commands.h"
#include "cli/exchange_text.h"
#include "cli/operate.h"
#include "cli/run_flags.h"
#include "cli/size_text.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <memory>

namespace godwit::cli {

namespace {

using control::Json;
using control::number_member;
using control::text_member;

/// Starts an operation of one machine and follows it.
ExitCode operate_on(const Session& session,
                    const std::string& name,
                    const std::string& action,
                    const Json& body,
                    std::string (*text_of)(const Json& result)) {
    return operate(session,
                   daemon_for(session, name),
                   "/api/v1/machines/" + name + "/" + action,
                   body,
                   text_of);
}

struct StopCommand {
    std::string name;
    bool force = false;
    std::uint64_t timeout_seconds = 30;
};

std::string stopped_text(const Json& result) {
    return text_member(result, "name") + " has ended: " + text_member(result, "reason") + "\n";
}

void add_stop(CLI::App& app, Invocation& invocation) {
    auto command = std::make_shared<StopCommand>();
    CLI::App* const stop =
        app.add_subcommand("stop", "End a machine: by its power button, or at once");
    stop->add_option("NAME", command->name, "Name of the machine")->required();
    stop->add_flag("--force", command->force, "End it at once, as if its power failed");
    stop->add_option("--timeout",
                     command->timeout_seconds,
                     "Wait so many seconds for the guest (default 30)")
        ->type_name("S")
        ->check(CLI::Range(1, 86'400).description(""));
    stop->footer("Examples:\n  godwit stop web1\n  godwit stop web1 --timeout 120\n  godwit stop "
                 "web1 --force");
    stop->callback([command, &invocation] {
        invocation.action = [command, &invocation] {
            const Json body{{"force", command->force}, {"timeout_s", command->timeout_seconds}};
            return operate_on(invocation.session, command->name, "stop", body, stopped_text);
        };
    });
}

void add_simple(
    CLI::App& app, Invocation& invocation, const char* action, const char* help, const char* done) {
    auto name = std::make_shared<std::string>();
    CLI::App* const added = app.add_subcommand(action, help);
    added->add_option("NAME", *name, "Name of the machine")->required();
    added->footer(std::string("Examples:\n  godwit ") + action + " web1");
    added->callback([name, &invocation, action, done] {
        invocation.action = [name, &invocation, action, done] {
            return put_and_print(
                invocation.session, *name, action, Json::object(), *name + " " + done + "\n");
        };
    });
}

struct BalloonCommand {
    std::string name;
    std::string size;
};

ExitCode set_balloon(const Session& session, const BalloonCommand& command) {
    const Result<std::uint64_t> bytes = parse_size(command.size);
    if (!bytes.has_value()) {
        return session.fail(bytes.error());
    }
    return put_and_print(session,
                         command.name,
                         "balloon",
                         {{"bytes", *bytes}},
                         command.name + " is asked to give " + size_text(*bytes) + " back\n");
}

void add_balloon(CLI::App& app, Invocation& invocation) {
    auto command = std::make_shared<BalloonCommand>();
    CLI::App* const balloon = app.add_subcommand("balloon", "Ask a guest to give memory back");
    balloon->add_option("NAME", command->name, "Name of the machine")->required();
    balloon
        ->add_option(
            "SIZE", command->size, "How much it shall have given back, like 512M; 0: nothing")
        ->required();
    balloon->footer("Examples:\n  godwit balloon web1 512M\n  godwit balloon web1 0");
    balloon->callback([command, &invocation] {
        invocation.action = [command, &invocation] {
            return set_balloon(invocation.session, *command);
        };
    });
}

std::string snapshot_text(const Json& result) {
    return text_member(result, "machine") + " is written to " + text_member(result, "directory") +
           ": " + size_text(number_member(result, "ram_bytes")) + " memory, of which " +
           std::to_string(number_member(result, "written_bytes")) + " bytes were not zero\n";
}

std::string recovered_text(const Json& report) {
    if (text_member(report, "operation") == "exchange") {
        return exchange_text(report); // From its keeper into a new VMM.
    }
    return text_member(report, "machine") + ": " + text_member(report, "outcome") +
           "\n  found: " + text_member(report, "found") +
           "\n  done: " + text_member(report, "done") + "\n";
}

void add_recover(CLI::App& app, Invocation& invocation) {
    auto name = std::make_shared<std::string>();
    CLI::App* const recover =
        app.add_subcommand("recover", "Let a guest run again that an exchange has left frozen");
    recover->add_option("NAME", *name, "Name of the machine")->required();
    recover->footer("A guest is frozen when its new VMM has claimed it and does not run it. If "
                    "that VMM lives,\n"
                    "it gets a moment to go on. Otherwise the old VMM takes the guest back and "
                    "goes on where it\n"
                    "stopped, but only if the new one has provably not run it. What was found and "
                    "done is told.\n"
                    "\n"
                    "Exit codes: 0 the guest runs; 1 nothing was changed; 3 the guest is lost.\n"
                    "\n"
                    "Examples:\n"
                    "  godwit recover web1\n"
                    "  godwit recover web1 --json");
    recover->callback([name, &invocation] {
        invocation.action = [name, &invocation] {
            return operate_on(invocation.session, *name, "recover", Json::object(), recovered_text);
        };
    });
}

struct SnapshotCommand {
    std::string name;
    std::string directory;
};

} // namespace

void add_control_commands(CLI::App& app, Invocation& invocation) {
    add_simple(app, invocation, "pause", "Let a guest stand still", "stands still");
    add_simple(app, invocation, "resume", "Let a paused guest go on", "runs");
    add_stop(app, invocation);
    add_balloon(app, invocation);
    add_disk_commands(app, invocation);
}

void add_handover_commands(CLI::App& app, Invocation& invocation) {
    auto shot = std::make_shared<SnapshotCommand>();
    CLI::App* const snapshot = app.add_subcommand("snapshot", "Write a machine to files");
    snapshot->add_option("NAME", shot->name, "Name of the machine")->required();
    snapshot->add_option("DIR", shot->directory, "Directory to make; disks are not copied")
        ->required();
    snapshot->footer("Examples:\n  godwit snapshot web1 /var/backups/web1");
    snapshot->callback([shot, &invocation] {
        invocation.action = [shot, &invocation] {
            const Json body{{"directory", absolute_path(shot->directory)}};
            return operate_on(invocation.session, shot->name, "snapshot", body, snapshot_text);
        };
    });

    add_recover(app, invocation);
    add_exchange_command(app, invocation);
}

} // namespace godwit::cli
