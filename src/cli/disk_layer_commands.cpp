/// disk: snapshot, merge and check.

#include "cli/commands.h"
#include "cli/disk_name.h"
#include "cli/disk_text.h"
#include "cli/operate.h"
#include "cli/run_flags.h"
#include "cli/size_text.h"
#include "machine/devices/delta_check.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <memory>

namespace godwit::cli {

namespace {

using control::Json;

constexpr std::chrono::milliseconds snapshot_time_max{70'000};

std::string path_of(const DiskName& name, const char* what) {
    return "/api/v1/machines/" + name.machine + "/disks/" + name.disk + "/" + what;
}

struct SnapshotCommand {
    std::string disk;
    std::string delta;
    std::string size;
};

ExitCode snapshot_disk(const Session& session, const SnapshotCommand& command) {
    const Result<DiskName> name = parse_disk_name(command.disk);
    const Result<std::uint64_t> bytes =
        command.size.empty() ? Result<std::uint64_t>(0) : parse_size(command.size);
    if (!name.has_value() || !bytes.has_value()) {
        return session.fail(name.has_value() ? bytes.error() : name.error());
    }
    const Result<DaemonClient> daemon = daemon_for(session, name->machine);
    const Result<Json> report =
        daemon.has_value()
            ? daemon->call("PUT",
                           path_of(*name, "snapshot"),
                           Json{{"delta", absolute_path(command.delta)}, {"bytes", *bytes}},
                           snapshot_time_max)
            : Result<Json>(daemon.error());
    if (!report.has_value()) {
        return session.fail(report.error());
    }
    session.print(*report, disk_snapshot_text(*report));
    return ExitCode::done;
}

void add_snapshot(CLI::App& disk, Invocation& invocation) {
    auto command = std::make_shared<SnapshotCommand>();
    CLI::App* const snapshot =
        disk.add_subcommand("snapshot", "Freeze a disk; its guest writes to a delta from then on");
    snapshot->add_option("MACHINE:DISK", command->disk, "Like web1:disk0")->required();
    snapshot
        ->add_option("DELTA",
                     command->delta,
                     "File that is made, or a block device; it may lie on a small device")
        ->required();
    snapshot
        ->add_option("--size",
                     command->size,
                     "Room of the file (default: enough for all of the disk, or nine tenths of the "
                     "free space)")
        ->type_name("SIZE");
    snapshot->footer(
        "Takes the same moment for every size of disk: what the guest has written until then "
        "stays\n"
        "in the image, which is not written any more and may be copied. When the delta is full "
        "the\n"
        "guest's writes wait, without an error, until there is room or it is merged; 'godwit\n"
        "events' tells. A frozen disk can be frozen again, and moved; the machine can be "
        "exchanged\n"
        "and saved. What a guest has not flushed is lost if its VMM is killed, as with the write\n"
        "cache of any disk.\n"
        "\n"
        "Examples:\n"
        "  godwit disk snapshot web1:disk0 /mnt/small/web1.delta\n"
        "  godwit disk snapshot web1:disk0 /mnt/small/web1.delta --size 4G\n"
        "  godwit disk list web1\n"
        "  godwit disk merge web1:disk0");
    snapshot->callback([command, &invocation] {
        invocation.action = [command, &invocation] {
            return snapshot_disk(invocation.session, *command);
        };
    });
}

ExitCode merge_disk(const Session& session, const std::string& text) {
    const Result<DiskName> name = parse_disk_name(text);
    if (!name.has_value()) {
        return session.fail(name.error());
    }
    const Result<DaemonClient> daemon = daemon_for(session, name->machine);
    Result<Json> operation = daemon.has_value()
                                 ? daemon->put(path_of(*name, "merge"), Json::object())
                                 : Result<Json>(daemon.error());
    if (operation.has_value()) {
        operation = follow(session, *daemon, std::move(*operation));
        if (!operation.has_value()) {
            session.note("the merge goes on without godwitd: see 'godwit disk list " +
                         name->machine + "', or end it with 'godwit disk cancel " + text + "'");
        }
    }
    return conclude(session, operation, disk_merge_text);
}

void add_merge(CLI::App& disk, Invocation& invocation) {
    auto name = std::make_shared<std::string>();
    CLI::App* const merge = disk.add_subcommand(
        "merge",
        "Bring what the deltas of a disk hold back into its image, while its guest uses it");
    merge->add_option("MACHINE:DISK", *name, "Like web1:disk0")->required();
    merge->footer(
        "When all deltas are empty their files go away. From the beginning on the image is\n"
        "written again. If it is cancelled (Ctrl-C, 'godwit disk cancel') or fails, or the\n"
        "VMM is killed, the deltas stay and nothing is lost: merge again. A machine\n"
        "whose disk is being merged is not exchanged and no snapshot is taken of it.\n"
        "\n"
        "Examples:\n"
        "  godwit disk merge web1:disk0\n"
        "  godwit disk list web1");
    merge->callback([name, &invocation] {
        invocation.action = [name, &invocation] { return merge_disk(invocation.session, *name); };
    });
}

struct CheckCommand {
    std::string delta;
    std::string base;
};

std::string check_text(const Json& report) {
    std::string text;
    for (const Json& finding : report["findings"]) {
        text +=
            finding["level"].get<std::string>() + ": " + finding["text"].get<std::string>() + "\n";
    }
    return text;
}

ExitCode check_disk_delta(const Session& session, const CheckCommand& command) {
    const Result<machine::DeltaReport> checked = machine::check_delta_file(
        absolute_path(command.delta), command.base.empty() ? "" : absolute_path(command.base));
    if (!checked.has_value()) {
        return session.fail(checked.error());
    }
    const Json report = Json::parse(checked->json, nullptr, false);
    session.print(report, check_text(report));
    return checked->good ? ExitCode::done : ExitCode::failed;
}

void add_check(CLI::App& disk, Invocation& invocation) {
    auto command = std::make_shared<CheckCommand>();
    CLI::App* const check =
        disk.add_subcommand("check", "Check a delta that no machine uses, without changing it");
    check->add_option("DELTA", command->delta, "File or block device")->required();
    check->add_option("--base", command->base, "The image it belongs over")->type_name("IMAGE");
    check->footer("Looks at headers, journal, checkpoint, owner and size, and with --base whether\n"
                  "the delta fits the image. Exit code 1 if something is wrong with it.\n"
                  "\n"
                  "Examples:\n"
                  "  godwit disk check /mnt/small/web1.delta --base web1.raw");
    check->callback([command, &invocation] {
        invocation.action = [command, &invocation] {
            return check_disk_delta(invocation.session, *command);
        };
    });
}

} // namespace

void add_disk_layer_commands(CLI::App& disk, Invocation& invocation) {
    add_snapshot(disk, invocation);
    add_merge(disk, invocation);
    add_check(disk, invocation);
}

} // namespace godwit::cli
