/// disk: move, list, cancel and refresh. Snapshot, merge and check: disk_layer_commands.cpp.

#include "cli/commands.h"
#include "cli/disk_fleet_command.h"
#include "cli/disk_name.h"
#include "cli/disk_text.h"
#include "cli/export_client.h"
#include "cli/export_commands.h"
#include "cli/operate.h"
#include "cli/run_flags.h"
#include "cli/size_text.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <memory>

namespace godwit::cli {

namespace {

using control::Json;

Status check_disk(const std::string& disk) {
    const bool good =
        !disk.empty() &&
        disk.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789") == std::string::npos;
    return good ? ok()
                : Error(ErrorCode::invalid_argument,
                        "'" + disk + "' is no disk; disks are disk0, disk1, ...");
}

/// Of a disk that godwit-blk exports, there is no machine.
bool names_export(const std::string& text) {
    return text.find(':') == std::string::npos;
}

} // namespace

Result<DiskName> parse_disk_name(const std::string& text) {
    const std::size_t colon = text.find(':');
    if (colon == std::string::npos) {
        return Error(ErrorCode::invalid_argument,
                     "'" + text + "' names no disk: say MACHINE:DISK, like web1:disk0");
    }
    DiskName name{.machine = text.substr(0, colon), .disk = text.substr(colon + 1)};
    GODWIT_TRY(control::check_machine_name(name.machine));
    GODWIT_TRY(check_disk(name.disk));
    return name;
}

namespace {

std::string path_of(const DiskName& name) {
    return "/api/v1/machines/" + name.machine + "/disks/" + name.disk + "/move";
}

struct MoveCommand {
    std::string disk;
    std::string destination;
    std::string scheme = "auto";
    std::string limit;
    double gamma = 0.5;
    bool safe = false;
    bool unsafe = false;
    bool all = false; ///< From here on: of many disks.
    std::vector<std::string> pool;
    std::uint32_t concurrency = 0;
    bool dry_run = false;
    bool keep_going = false;
};

std::string machine_of(const std::string& disk) {
    return disk.substr(0, disk.find(':'));
}

bool names_many(const MoveCommand& command) {
    return command.all || command.disk.ends_with(":*");
}

/// What would be left out without a word is refused.
Status check_many(const MoveCommand& command) {
    if (command.all != command.disk.empty() || command.pool.empty() ||
        !command.destination.empty()) {
        return Error(ErrorCode::invalid_argument,
                     "many disks: say --all or MACHINE:*, and --to DIRECTORY");
    }
    if (!command.all) {
        GODWIT_TRY(control::check_machine_name(machine_of(command.disk)));
    }
    if (command.scheme != "auto" || command.safe) {
        return Error(ErrorCode::invalid_argument,
                     "--scheme and --safe are for one disk: of many, each gets the scheme that "
                     "makes the whole cheapest");
    }
    return ok();
}

Status check_one(const MoveCommand& command) {
    if (command.disk.empty() || command.destination.empty()) {
        return Error(ErrorCode::invalid_argument,
                     "say which disk and where to, like web1:disk0 /mnt/fast/web1.raw; or --all "
                     "and --to");
    }
    if (!command.pool.empty() || command.concurrency != 0 || command.dry_run ||
        command.keep_going) {
        return Error(ErrorCode::invalid_argument,
                     "--to, --concurrency, --dry-run and --keep-going are for --all or MACHINE:*");
    }
    if (command.unsafe && command.scheme != "lr") {
        return Error(ErrorCode::invalid_argument,
                     "--unsafe is for --scheme lr: the other schemes keep the source complete "
                     "anyway");
    }
    return ok();
}

ExitCode move_many(const Session& session, const MoveCommand& command, std::uint64_t limit) {
    return move_disks(session,
                      {.machine = machine_of(command.disk),
                       .directories = command.pool,
                       .limit_bytes_per_second = limit,
                       .gamma = command.gamma,
                       .concurrency = command.concurrency,
                       .unsafe = command.unsafe,
                       .dry_run = command.dry_run,
                       .keep_going = command.keep_going});
}

ExitCode move_disk(const Session& session, const MoveCommand& command) {
    const Status sensible = names_many(command) ? check_many(command) : check_one(command);
    if (!sensible.has_value()) {
        return session.fail(sensible.error());
    }
    const Result<std::uint64_t> limit =
        command.limit.empty() ? Result<std::uint64_t>(0) : parse_size(command.limit);
    if (!limit.has_value()) {
        return session.fail(limit.error());
    }
    if (names_many(command)) {
        return move_many(session, command, *limit);
    }
    const Json body{{"destination", absolute_path(command.destination)},
                    {"scheme", command.scheme},
                    {"unsafe", command.unsafe},
                    {"limit_bytes_per_second", *limit},
                    {"gamma", command.gamma}};
    if (names_export(command.disk)) {
        return move_export(session, command.disk, body);
    }
    const Result<DiskName> name = parse_disk_name(command.disk);
    if (!name.has_value()) {
        return session.fail(name.error());
    }
    const Result<DaemonClient> daemon = daemon_for(session, name->machine);
    Result<Json> operation =
        daemon.has_value() ? daemon->put(path_of(*name), body) : Result<Json>(daemon.error());
    if (operation.has_value()) {
        operation = follow(session, *daemon, std::move(*operation));
        if (!operation.has_value()) {
            session.note("the move goes on without godwitd: see 'godwit disk list " +
                         name->machine + "', or end it with 'godwit disk cancel " + command.disk +
                         "'");
        }
    }
    return conclude(session, operation, disk_move_text);
}

void add_many(CLI::App& move, MoveCommand& command) {
    move.add_flag("--all", command.all, "The disks of all machines of this host");
    move.add_option("--to",
                    command.pool,
                    "With --all or MACHINE:*: directories the images go to, separated by commas")
        ->type_name("DIR[,DIR..]")
        ->delimiter(',')
        ->allow_extra_args(false);
    move.add_option("--concurrency",
                    command.concurrency,
                    "With --all or MACHINE:*: moves at a time at each device, at most (default: as "
                    "many as are best)")
        ->type_name("N")
        ->check(CLI::Range(1, 8).description(""));
    move.add_flag(
        "--dry-run", command.dry_run, "With --all or MACHINE:*: measure and plan, move nothing");
    move.add_flag("--keep-going",
                  command.keep_going,
                  "With --all or MACHINE:*: also when something speaks against some of the disks");
}

void add_move(CLI::App& disk, Invocation& invocation) {
    auto command = std::make_shared<MoveCommand>();
    CLI::App* const move = disk.add_subcommand("move", "Move a disk while its guest uses it");
    move->add_option("MACHINE:DISK|EXPORT",
                     command->disk,
                     "Like web1:disk0; or the name of what a godwit-blk exports, or its control "
                     "socket; or web1:* for all disks of a machine, with --to");
    move->add_option("DEST",
                     command->destination,
                     "File or block device at least as large as the disk; a file that is not "
                     "there is made");
    add_many(*move, *command);
    move->add_option("--scheme",
                     command->scheme,
                     "auto (default): what costs least here; dbt, slr: copy, then what changed, "
                     "then a short pause; tiered: the same, what is written often last; mirror: "
                     "writes go to both; aio: to both, done when the first is; lr: to the "
                     "destination")
        ->type_name("SCHEME")
        ->check(
            CLI::IsMember({"auto", "dbt", "mirror", "lr", "slr", "aio", "tiered"}).description(""));
    auto* const safe = move->add_flag("--safe",
                                      command->safe,
                                      "With lr: the source gets every write as well, later "
                                      "(default)");
    move->add_flag("--unsafe",
                   command->unsafe,
                   "With lr: it does not. If the VMM is killed on the way, the disk is lost. Of "
                   "many disks: lr may be taken")
        ->excludes(safe);
    move->add_option("--limit", command->limit, "Copy at most so much per second, like 50M")
        ->type_name("SIZE");
    move->add_option("--gamma",
                     command->gamma,
                     "For auto: 0 thinks of the guest's speed alone, 1 of the devices' wear "
                     "(default 0.5)")
        ->type_name("G")
        ->check(CLI::Range(0.0, 1.0).description(""));
    move->footer(
        "The guest goes on all the time; at the end its requests wait for a moment. Then the\n"
        "machine's document names the new place, and the old image is not used any more. If\n"
        "anything fails before, and on Ctrl-C, the disk stays where it was, complete, and a file\n"
        "made for it goes away (exit code 1). A machine whose disk moves is not exchanged and no\n"
        "snapshot is taken of it. With auto the report says what each scheme was expected to\n"
        "cost.\n"
        "\n"
        "Of an export the new place is noted beside the image, in IMAGE.place, which the next\n"
        "'godwit-blk serve IMAGE' follows.\n"
        "\n"
        "Many disks: devices are measured and each guest is watched for a second, one disk after\n"
        "the other where they share a device. Then all moves are planned together: order, moves\n"
        "at a time, and for each disk the scheme that makes the sum of the costs least. Room and\n"
        "names are checked before anything begins; a move that fails leaves the others alone\n"
        "(exit code 1; the report says where each lies). Images are named MACHINE-DISK.raw. "
        "Ctrl-C\n"
        "brings back what is under way and begins no more; what has moved stays moved. Exports "
        "are\n"
        "not among --all.\n"
        "\n"
        "Examples:\n"
        "  godwit disk move web1:disk0 /mnt/fast/web1.raw\n"
        "  godwit disk move web1:disk0 /dev/nvme1n1p2 --scheme mirror --limit 200M\n"
        "  godwit disk move web2 /mnt/fast/web2.raw\n"
        "  godwit disk move --all --to /mnt/a,/mnt/b --dry-run\n"
        "  godwit disk move 'web1:*' --to /mnt/fast --gamma 0.2\n"
        "  godwit disk list web1\n"
        "  godwit disk cancel web1:disk0");
    move->callback([command, &invocation] {
        invocation.action = [command, &invocation] {
            return move_disk(invocation.session, *command);
        };
    });
}

ExitCode cancel_move(const Session& session, const std::string& text) {
    if (names_export(text)) {
        return cancel_export_move(session, text);
    }
    const Result<DiskName> name = parse_disk_name(text);
    if (!name.has_value()) {
        return session.fail(name.error());
    }
    const Result<DaemonClient> daemon = daemon_for(session, name->machine);
    Result<Json> operation =
        daemon.has_value()
            ? daemon->call("DELETE", path_of(*name), {}, std::chrono::milliseconds(10'000))
            : Result<Json>(daemon.error());
    if (operation.has_value()) {
        operation = follow(session, *daemon, std::move(*operation));
    }
    if (!operation.has_value()) {
        return session.fail(operation.error());
    }
    const Json report = operation->value("result", Json());
    const bool merge = control::text_member(*operation, "kind") == "disk-merge";
    if (control::text_member(*operation, "state") != "cancelled") {
        return conclude( // It was too late, or it failed.
            session,
            operation,
            merge ? disk_merge_text : disk_move_text);
    }
    session.print(report,
                  merge ? name->disk + " of " + name->machine + " keeps its deltas\n"
                        : name->disk + " of " + name->machine + " stays at '" +
                              control::text_member(report, "source") + "'\n");
    return ExitCode::done;
}

void add_cancel(CLI::App& disk, Invocation& invocation) {
    auto name = std::make_shared<std::string>();
    CLI::App* const cancel =
        disk.add_subcommand("cancel", "Bring a disk that moves back, or stop its merge");
    cancel->add_option("MACHINE:DISK|EXPORT", *name, "Like web1:disk0, or an export")->required();
    cancel->footer("Examples:\n  godwit disk cancel web1:disk0");
    cancel->callback([name, &invocation] {
        invocation.action = [name, &invocation] { return cancel_move(invocation.session, *name); };
    });
}

ExitCode list_disks(const Session& session, const std::string& name) {
    if (ExportClient::is_known(session.run_directory, name)) {
        return list_export(session, name);
    }
    const Result<DaemonClient> daemon = daemon_for(session, name);
    const Result<Json> answer = daemon.has_value()
                                    ? daemon->get("/api/v1/machines/" + name + "/disks")
                                    : Result<Json>(daemon.error());
    if (!answer.has_value()) {
        return session.fail(answer.error());
    }
    session.print(*answer, disks_text(*answer));
    return ExitCode::done;
}

void add_list(CLI::App& disk, Invocation& invocation) {
    auto name = std::make_shared<std::string>();
    CLI::App* const list =
        disk.add_subcommand("list",
                            "Show where the disks of a machine, or an export, lie, and what is "
                            "done to them");
    list->add_option("NAME", *name, "Name of the machine, or of an export, which goes first")
        ->required();
    list->footer("Of an export its requests are shown, too, and how long they took.\n\n"
                 "Examples:\n  godwit disk list web1");
    list->callback([name, &invocation] {
        invocation.action = [name, &invocation] { return list_disks(invocation.session, *name); };
    });
}

struct ExchangeServerCommand {
    std::string name;
    std::string program;
    std::uint64_t prepare_ms = 30'000;
    std::uint64_t deadline_ms = 5'000;
};

ExitCode exchange_server(const Session& session, const ExchangeServerCommand& command) {
    if (parse_disk_name(command.name).has_value() && !names_export(command.name)) {
        return session.fail(Error(ErrorCode::invalid_argument,
                                  "'" + command.name +
                                      "' is a machine's disk, which is exchanged with its "
                                      "machine: 'godwit exchange'"));
    }
    Json request{{"prepare_ms", command.prepare_ms}, {"deadline_ms", command.deadline_ms}};
    if (!command.program.empty()) {
        request["program"] = absolute_path(command.program);
    }
    return exchange_export(session, command.name, request);
}

void add_exchange_server(CLI::App& disk, Invocation& invocation) {
    auto command = std::make_shared<ExchangeServerCommand>();
    CLI::App* const exchange = disk.add_subcommand(
        "exchange", "Replace the godwit-blk of an export while guests and programs use it");
    exchange
        ->add_option(
            "EXPORT", command->name, "Name of what a godwit-blk exports, or its control socket")
        ->required();
    exchange
        ->add_option("--to",
                     command->program,
                     "The new godwit-blk, or the prefix of the installation it is in (default: "
                     "what lies where the present one was started from)")
        ->type_name("PATH");
    exchange
        ->add_option("--deadline-ms",
                     command->deadline_ms,
                     "Longest time from when requests come to rest until the new process serves; "
                     "then the old one goes on (default 5000)")
        ->type_name("MS")
        ->check(CLI::Range(1, 600'000).description(""));
    exchange
        ->add_option("--prepare-ms",
                     command->prepare_ms,
                     "Longest time for building the new process, while requests are served "
                     "(default 30000)")
        ->type_name("MS")
        ->check(CLI::Range(1, 600'000).description(""));
    exchange->footer(
        "The new process is built beside the old one; then requests wait for a moment, and\n"
        "connections, rings and what is half sent go over with the image and its lock. Guests\n"
        "and clients keep their connections. If anything fails before the new process has it,\n"
        "the old one serves on (exit code 1). It has another process number, which systemd is "
        "told\n"
        "if the unit says NotifyAccess=main. A disk that moves is not exchanged.\n"
        "\n"
        "Examples:\n"
        "  godwit disk exchange web1\n"
        "  godwit disk exchange web1 --to /opt/godwit-2");
    exchange->callback([command, &invocation] {
        invocation.action = [command, &invocation] {
            return exchange_server(invocation.session, *command);
        };
    });
}

struct RefreshCommand {
    std::string name;
    std::string disk;
};

ExitCode refresh_disk(const Session& session, const RefreshCommand& command) {
    const Status good = check_disk(command.disk);
    if (!good.has_value()) {
        return session.fail(good.error());
    }
    return put_and_print(session,
                         command.name,
                         "disks/" + command.disk + "/refresh",
                         Json::object(),
                         command.name + " knows the present size of " + command.disk + "\n");
}

void add_refresh(CLI::App& disk, Invocation& invocation) {
    auto command = std::make_shared<RefreshCommand>();
    CLI::App* const refresh =
        disk.add_subcommand("refresh", "Tell the guest that a disk has changed its size");
    refresh->add_option("NAME", command->name, "Name of the machine")->required();
    refresh->add_option("DISK", command->disk, "disk0 is the first one")->required();
    refresh->footer("Examples:\n  truncate -s 20G db.img && godwit disk refresh db1 disk0");
    refresh->callback([command, &invocation] {
        invocation.action = [command, &invocation] {
            return refresh_disk(invocation.session, *command);
        };
    });
}

} // namespace

void add_disk_commands(CLI::App& app, Invocation& invocation) {
    CLI::App* const disk =
        app.add_subcommand("disk", "Work on the disks of a machine, or on an exported one");
    disk->require_subcommand(1);
    disk->fallthrough();
    add_move(*disk, invocation);
    add_disk_layer_commands(*disk, invocation);
    add_list(*disk, invocation);
    add_cancel(*disk, invocation);
    add_exchange_server(*disk, invocation);
    add_refresh(*disk, invocation);
}

} // namespace godwit::cli
