/// run and restore.

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/run_flags.h"
#include "cli/size_text.h"
#include "sys/fd.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <memory>

namespace godwit::cli {

namespace {

using control::Json;

/// The machine is made within this or godwitd gives it up.
constexpr std::chrono::milliseconds run_time_max{90'000};

struct RunCommand {
    RunFlags flags;
    std::string serial;
    std::string console;
    bool attach = false;
};

std::string started_text(const Json& machine) {
    const Json vmm = machine.contains("vmm") ? machine["vmm"] : Json();
    return control::text_member(machine, "name") + " is " + control::text_member(machine, "state") +
           ": " + std::to_string(control::number_member(machine, "vcpus")) + " vCPU, " +
           size_text(control::number_member(machine, "memory_bytes")) + " memory, VMM process " +
           std::to_string(control::number_member(vmm, "pid")) + "\n";
}

ExitCode attach_to(const Session& session,
                   const DaemonClient& daemon,
                   const std::string& name,
                   const std::string& port) {
    const Result<ConsoleEnd> end = attach_console(daemon, name, port);
    if (!end.has_value()) {
        return session.fail(end.error());
    }
    return ExitCode::done;
}

ExitCode run_machine(const Session& session, const RunCommand& command) {
    RunFlags flags = command.flags;
    const auto switched = [](const std::string& text) {
        return text.empty() ? std::optional<bool>() : std::optional(text == "on");
    };
    flags.serial = switched(command.serial);
    flags.console = switched(command.console);
    std::string base;
    if (!flags.spec_file.empty()) {
        Result<std::string> text = sys::read_file(flags.spec_file, machine::spec_json_bytes_max);
        if (!text.has_value()) {
            return session.fail(std::move(text.error()).with_context("--spec"), ExitCode::usage);
        }
        base = std::move(*text);
    }
    const Status good = control::check_machine_name(flags.name);
    const Result<machine::MachineSpec> spec = good.has_value()
                                                  ? machine_spec_from(flags, base)
                                                  : Result<machine::MachineSpec>(good.error());
    if (!spec.has_value()) {
        return session.fail(spec.error());
    }
    const Result<Json> document = control::parse_json(machine::to_json(*spec));
    const Result<DaemonClient> daemon = session.daemon();
    if (!document.has_value() || !daemon.has_value()) {
        return session.fail(document.has_value() ? daemon.error() : document.error());
    }
    const Result<Json> machine = daemon->call("POST", "/api/v1/machines", *document, run_time_max);
    if (!machine.has_value()) {
        return session.fail(machine.error());
    }
    if (command.attach) {
        session.note(started_text(*machine));
        return attach_to(session, *daemon, flags.name, spec->serial ? "serial" : "virtio");
    }
    session.print(*machine, started_text(*machine));
    return ExitCode::done;
}

void add_run(CLI::App& app, Invocation& invocation) {
    auto command = std::make_shared<RunCommand>();
    RunFlags& flags = command->flags;
    CLI::App* const run = app.add_subcommand("run", "Create a machine and start it");
    run->add_option("NAME", flags.name, "Name of the machine: a-z, 0-9 and '-', at most 48")
        ->required();
    run->add_option("--kernel",
                    flags.kernel,
                    "Kernel: an ELF with a PVH entry (vmlinux) or a bzImage (vmlinuz)")
        ->type_name("PATH");
    run->add_option("--initrd", flags.initrd, "Initial RAM disk")->type_name("PATH");
    run->add_option("--cmdline", flags.command_line, "Command line of the kernel")
        ->type_name("TEXT");
    run->add_option("--cpus", flags.cpus, "Number of vCPUs, 1 to 64 (default 1)")->type_name("N");
    run->add_option("--memory",
                    flags.memory,
                    "Size of the memory, like 512M or 4G (default 256M); 4G,pool: in the host's "
                    "memory pool, which 'godwit exchange --all --mode partition' moves by pointers")
        ->type_name("SIZE[,pool]");
    CLI::Option* const file =
        run->add_option("--memory-file", flags.memory_file, "Keep the guest's memory in this file")
            ->type_name("PATH");
    run->add_flag(
           "--hugepages", flags.huge_pages, "Take the memory from the host's reserved 2 MiB pages")
        ->excludes(file);
    run->add_option("--disk",
                    flags.disks,
                    "Disk: PATH[,ro][,serial=S][,queues=N][,direct=off]; may be repeated")
        ->type_name("DISK")
        ->allow_extra_args(false);
    run->add_option("--net", flags.nets, "Network: tap=IF[,mac=M][,queues=N]; may be repeated")
        ->type_name("NET")
        ->allow_extra_args(false);
    const CLI::Validator on_off = CLI::IsMember({"on", "off"}).description("");
    run->add_option("--serial", command->serial, "Serial port ttyS0: on or off (default on)")
        ->type_name("on|off")
        ->check(on_off);
    run->add_option("--console", command->console, "virtio console hvc0: on or off (default on)")
        ->type_name("on|off")
        ->check(on_off);
    run->add_option("--spec", flags.spec_file, "Machine document (JSON); the other flags change it")
        ->type_name("FILE");
    run->add_flag("--attach", command->attach, "Attach to its console at once");
    run->footer("Examples:\n"
                "  godwit run web1 --kernel vmlinuz --initrd initrd.img --cmdline console=ttyS0\n"
                "  godwit run db1 --kernel vmlinux --cpus 4 --memory 8G --disk db.img,queues=4 \\\n"
                "      --net tap=tap0\n"
                "  godwit run web2 --spec web.json --memory 1G");
    run->callback([command, &invocation] {
        invocation.action = [command, &invocation] {
            return run_machine(invocation.session, *command);
        };
    });
}

struct RestoreCommand {
    std::string directory;
    std::string name;
    bool copy_ram = false;
};

ExitCode restore_machine(const Session& session, const RestoreCommand& command) {
    const Result<DaemonClient> daemon = session.daemon();
    if (!daemon.has_value()) {
        return session.fail(daemon.error());
    }
    Json body{{"directory", absolute_path(command.directory)}, {"copy_ram", command.copy_ram}};
    if (!command.name.empty()) {
        body["name"] = command.name;
    }
    Result<Json> operation = daemon->call("POST", "/api/v1/restore", body, run_time_max);
    if (operation.has_value()) {
        operation = follow(session, *daemon, std::move(*operation));
    }
    if (!operation.has_value()) {
        return session.fail(operation.error());
    }
    if (exit_code_of_operation(*operation) != ExitCode::done) {
        return session.fail(control::error_of((*operation)["error"]),
                            exit_code_of_operation(*operation));
    }
    session.print((*operation)["result"], started_text((*operation)["result"]));
    return ExitCode::done;
}

void add_restore(CLI::App& app, Invocation& invocation) {
    auto command = std::make_shared<RestoreCommand>();
    CLI::App* const restore = app.add_subcommand("restore", "Start a machine from a snapshot");
    restore->add_option("DIR", command->directory, "Directory of the snapshot")->required();
    restore->add_option("--name", command->name, "Another name than it had")->type_name("NAME");
    restore->add_flag(
        "--copy-ram",
        command->copy_ram,
        "Copy the memory instead of mapping the snapshot's file: starts slower, and the "
        "machine can be exchanged");
    restore->footer("Examples:\n"
                    "  godwit restore /var/backups/web1\n"
                    "  godwit restore /var/backups/web1 --name web1-test");
    restore->callback([command, &invocation] {
        invocation.action = [command, &invocation] {
            return restore_machine(invocation.session, *command);
        };
    });
}

} // namespace

void add_machine_commands(CLI::App& app, Invocation& invocation) {
    add_run(app, invocation);
    add_restore(app, invocation);
}

namespace {

struct ConsoleCommand {
    std::string name;
    std::string port = "serial";
};

} // namespace

void add_console_command(CLI::App& app, Invocation& invocation) {
    auto command = std::make_shared<ConsoleCommand>();
    CLI::App* const console = app.add_subcommand("console", "Attach to a console of a machine");
    console->add_option("NAME", command->name, "Name of the machine")->required();
    console->add_option("--port", command->port, "serial or virtio (default serial)")
        ->type_name("PORT")
        ->check(CLI::IsMember({"serial", "virtio"}).description(""));
    console->footer(
        "Leave with Ctrl-] and then '.'; Ctrl-] twice sends it to the guest. What the guest\n"
        "printed while nobody was attached is shown first. The console stays attached when\n"
        "the VMM is exchanged. With pipes, stdin goes to the guest and its output to stdout\n"
        "until the machine ends.\n"
        "\n"
        "Examples:\n"
        "  godwit console web1\n"
        "  echo poweroff | godwit console web1 --port virtio");
    console->callback([command, &invocation] {
        invocation.action = [command, &invocation] {
            const Session& session = invocation.session;
            const Status good = control::check_machine_name(command->name);
            const Result<DaemonClient> daemon =
                good.has_value() ? session.daemon() : Result<DaemonClient>(good.error());
            if (!daemon.has_value()) {
                return session.fail(daemon.error());
            }
            return attach_to(session, *daemon, command->name, command->port);
        };
    });
}

} // namespace godwit::cli
