/// ps, info, events and version.

#include "base/program.h"
#include "base/version.h"
#include "cli/commands.h"
#include "cli/size_text.h"
#include "cli/table.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <cstdio>
#include <memory>

namespace godwit::cli {

namespace {

using control::Json;
using control::number_member;
using control::text_member;

Json member(const Json& object, const char* name) {
    return object.is_object() && object.contains(name) ? object[name] : Json();
}

std::string short_build(const Json& vmm) {
    return text_member(vmm, "build_id").substr(0, 12);
}

std::string up_text(std::uint64_t seconds) {
    std::string small = std::to_string(seconds % 60) + "s";
    if (seconds < 60) {
        return small;
    }
    const std::uint64_t minutes = seconds / 60;
    return minutes < 60 ? std::to_string(minutes) + "m" + small
                        : std::to_string(minutes / 60) + "h" + std::to_string(minutes % 60) + "m";
}

ExitCode list_machines(const Session& session) {
    const Result<DaemonClient> daemon = session.daemon();
    const Result<Json> answer =
        daemon.has_value() ? daemon->get("/api/v1/machines") : Result<Json>(daemon.error());
    if (!answer.has_value()) {
        return session.fail(answer.error());
    }
    Table table({"NAME", "STATE", "VCPUS", "MEMORY", "PID", "BUILD", "EPOCH", "UP"});
    for (const Json& machine : member(*answer, "machines")) {
        const Json vmm = member(machine, "vmm");
        table.add({text_member(machine, "name"),
                   text_member(machine, "state"),
                   std::to_string(number_member(machine, "vcpus")),
                   size_text(number_member(machine, "memory_bytes")),
                   std::to_string(number_member(vmm, "pid")),
                   short_build(vmm),
                   std::to_string(number_member(vmm, "epoch")),
                   up_text(number_member(vmm, "uptime_s"))});
    }
    session.print(*answer, table.to_string());
    return ExitCode::done;
}

std::string info_text(const Json& machine) {
    const Json vmm = member(machine, "vmm");
    Table table({"name", text_member(machine, "name")});
    table.add({"id", text_member(machine, "id")});
    table.add({"state", text_member(machine, "state")});
    if (const std::string trouble = text_member(machine, "trouble"); !trouble.empty()) {
        table.add({"trouble", trouble});
    }
    table.add({"vcpus", std::to_string(number_member(machine, "vcpus"))});
    table.add({"memory", size_text(number_member(machine, "memory_bytes"))});
    table.add({"vmm process", std::to_string(number_member(vmm, "pid"))});
    table.add({"vmm version", text_member(vmm, "version")});
    table.add({"vmm build", text_member(vmm, "build_id")});
    table.add({"owner epoch", std::to_string(number_member(vmm, "epoch"))});
    table.add({"up", up_text(number_member(vmm, "uptime_s"))});
    const Json consoles = member(machine, "consoles");
    for (const auto& [port, path] : consoles.items()) {
        table.add({"console " + port, path.is_string() ? path.get<std::string>() : ""});
    }
    const Json spec = member(machine, "spec");
    table.add({"kernel", text_member(member(spec, "kernel"), "path")});
    std::size_t index = 0;
    for (const Json& disk : member(spec, "disks")) {
        table.add({"disk" + std::to_string(index++), text_member(disk, "path")});
        for (const Json& delta : member(disk, "deltas")) {
            table.add({"", "under " + text_member(delta, "path")});
        }
    }
    index = 0;
    for (const Json& net : member(spec, "nets")) {
        table.add({"net" + std::to_string(index++), text_member(net, "tap")});
    }
    return table.to_string();
}

ExitCode show_machine(const Session& session, const std::string& name) {
    const Status good = control::check_machine_name(name);
    const Result<DaemonClient> daemon =
        good.has_value() ? session.daemon() : Result<DaemonClient>(good.error());
    const Result<Json> answer =
        daemon.has_value() ? daemon->get("/api/v1/machines/" + name) : Result<Json>(daemon.error());
    if (!answer.has_value()) {
        return session.fail(answer.error());
    }
    session.print(*answer, info_text(*answer));
    return ExitCode::done;
}

struct EventsCommand {
    bool follow = false;
    std::uint64_t since = 0;
};

std::string event_text(const std::string& json) {
    const Result<Json> parsed = control::parse_json(json);
    if (!parsed.has_value()) {
        return json;
    }
    std::string text = text_member(*parsed, "time", "-") + "  " + text_member(*parsed, "event");
    if (const std::string machine = text_member(*parsed, "machine"); !machine.empty()) {
        text += "  " + machine;
    }
    for (const auto& [key, value] : parsed->items()) {
        if (key != "time" && key != "event" && key != "machine" && key != "id") {
            text += "  " + key + "=" +
                    (value.is_string() ? value.get<std::string>() : control::json_text(value));
        }
    }
    return printable(text);
}

ExitCode show_events(const Session& session, const EventsCommand& command) {
    const Result<DaemonClient> daemon = session.daemon();
    if (!daemon.has_value()) {
        return session.fail(daemon.error());
    }
    const std::string query =
        "?since=" + std::to_string(command.since) + (command.follow ? "" : "&follow=false");
    const Status ended = daemon->events(query, [&](const std::string& json) {
        const std::string line = (session.json ? json : event_text(json)) + "\n";
        return std::fwrite(line.data(), 1, line.size(), stdout) == line.size() &&
               std::fflush(stdout) == 0;
    });
    return ended.has_value() ? ExitCode::done : session.fail(ended.error());
}

ExitCode show_version(const Session& session) {
    const Json document{{"version", version()}, {"build_id", build_id()}};
    session.print(document, "godwit " + version_text() + "\n");
    return ExitCode::done;
}

} // namespace

void add_inventory_commands(CLI::App& app, Invocation& invocation) {
    CLI::App* const ps = app.add_subcommand("ps", "List the machines of this host");
    ps->footer("Examples:\n  godwit ps\n  godwit ps --json | jq -r '.machines[].name'");
    ps->callback([&invocation] {
        invocation.action = [&invocation] { return list_machines(invocation.session); };
    });

    auto name = std::make_shared<std::string>();
    CLI::App* const info = app.add_subcommand("info", "Show everything about a machine");
    info->add_option("NAME", *name, "Name of the machine")->required();
    info->footer("Examples:\n  godwit info web1\n  godwit info web1 --json | jq .statistics");
    info->callback([name, &invocation] {
        invocation.action = [name, &invocation] { return show_machine(invocation.session, *name); };
    });

    auto command = std::make_shared<EventsCommand>();
    CLI::App* const events = app.add_subcommand("events", "Show what happened on this host");
    events->add_flag("--follow,-f", command->follow, "Go on with new events until interrupted");
    events->add_option("--since", command->since, "Begin after the event with this id")
        ->type_name("ID");
    events->footer("Examples:\n  godwit events\n  godwit events --follow --json");
    events->callback([command, &invocation] {
        invocation.action = [command, &invocation] {
            return show_events(invocation.session, *command);
        };
    });

    CLI::App* const shown =
        app.add_subcommand("version", "Show the version and build of this program");
    shown->footer("Examples:\n  godwit version --json");
    shown->callback([&invocation] {
        invocation.action = [&invocation] { return show_version(invocation.session); };
    });
}

} // namespace godwit::cli
