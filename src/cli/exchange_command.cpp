/// exchange: of one machine or of all, its plan and its history.

#include "cli/commands.h"
#include "cli/exchange_text.h"
#include "cli/live_table.h"
#include "cli/operate.h"
#include "cli/run_flags.h"
#include "cli/size_text.h"
#include "cli/suspend_command.h"
#include "control/exchange_mode.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <memory>
#include <optional>
#include <set>

namespace godwit::cli {

namespace {

using control::Json;

struct ExchangeCommand {
    std::string name;
    bool all = false;
    bool dry_run = false;
    bool history = false;
    std::string program;
    std::string mode = "hot-restart";
    std::string timing = "late";
    std::string target_cpus;
    std::string order = "name";
    bool order_given = false;
    std::uint64_t concurrency = 0;
    bool keep_going = false;
    bool stop_on_failure = false;
    bool again = false;
    std::optional<std::uint64_t> deadline_ms;
    std::uint64_t prepare_ms = 30'000;
    std::uint64_t limit = 20;
};

Json body_of(const ExchangeCommand& command) {
    Json body{{"prepare_ms", command.prepare_ms}, {"mode", command.mode}};
    if (command.timing != "late") {
        body["timing"] = command.timing;
    }
    if (command.deadline_ms.has_value()) {
        body["deadline_ms"] = *command.deadline_ms;
    }
    if (!command.program.empty()) {
        body["program"] = absolute_path(command.program);
    }
    return body;
}

Json body_of_all(const ExchangeCommand& command) {
    Json body = body_of(command);
    body["order"] = command.order;
    body["keep_going"] = command.keep_going;
    body["again"] = command.again;
    if (!command.target_cpus.empty()) {
        body["target_cpus"] = command.target_cpus;
    }
    if (command.concurrency > 0) {
        body["concurrency"] = command.concurrency;
    }
    return body;
}

ExitCode show_plan(const Session& session, const ExchangeCommand& command) {
    Json body = body_of_all(command);
    if (!command.all) {
        body["machine"] = command.name;
    }
    const Result<DaemonClient> daemon = session.daemon();
    const Result<Json> plan = daemon.has_value() ? daemon->put("/api/v1/exchange/plan", body)
                                                 : Result<Json>(daemon.error());
    if (!plan.has_value()) {
        return session.fail(plan.error());
    }
    session.print(*plan, plan_text(*plan));
    const Json counts = plan->value("counts", Json());
    const bool good = control::number_member(counts, "refused") == 0 &&
                      control::text_member(*plan, "trouble").empty();
    return good ? ExitCode::done : ExitCode::failed;
}

ExitCode show_history(const Session& session, const ExchangeCommand& command) {
    const Result<DaemonClient> daemon =
        command.name.empty() ? session.daemon() : daemon_for(session, command.name);
    const std::string query = "?limit=" + std::to_string(command.limit) +
                              (command.name.empty() ? "" : "&machine=" + command.name);
    const Result<Json> answer =
        daemon.has_value() ? daemon->get("/api/v1/reports" + query) : Result<Json>(daemon.error());
    if (!answer.has_value()) {
        return session.fail(answer.error());
    }
    session.print(*answer, history_text(answer->value("reports", Json::array())));
    return ExitCode::done;
}

constexpr LiveRows machine_rows{
    .list = "machines",
    .name = [](const Json& machine) { return control::text_member(machine, "machine"); },
    .end = [](const Json& machine) -> std::string {
        const Json blackout = machine.value("blackout_us", Json());
        return blackout.is_number_integer()
                   ? ", stood still for " + duration_text(blackout.get<std::int64_t>())
                   : "";
    },
    .lines = progress_lines};

ExitCode exchange_all(const Session& session, const ExchangeCommand& command) {
    const Result<DaemonClient> daemon = session.daemon();
    Result<Json> operation = daemon.has_value()
                                 ? daemon->put("/api/v1/exchange", body_of_all(command))
                                 : Result<Json>(daemon.error());
    if (operation.has_value()) {
        LiveTable table(session, machine_rows);
        const auto show = [&](const Json& now) { table.show(now); };
        operation = command.mode == "partition"
                        ? follow_to_the_next_daemon(session, *daemon, std::move(*operation), show)
                        : follow(session, *daemon, std::move(*operation), show);
    }
    if (operation.has_value() && !session.json && operation->value("result", Json()).is_object() &&
        exit_code_of_operation(*operation) != ExitCode::done) {
        session.print(Json(), total_text((*operation)["result"])); // The error comes below it.
    }
    return conclude(session, operation, total_text);
}

Status check_partition(const ExchangeCommand& command) {
    if (command.mode == "partition" && (!command.all || command.target_cpus.empty())) {
        return Error(ErrorCode::invalid_argument,
                     "mode partition replaces the whole hypervisor: say --all, and with "
                     "--target-cpus where the new one starts");
    }
    if (command.mode != "partition" && !command.target_cpus.empty()) {
        return Error(ErrorCode::invalid_argument, "--target-cpus is for --mode partition");
    }
    return ok();
}

/// What would be left out without a word is refused.
Status check_flags(const ExchangeCommand& command) {
    const bool suspend = command.mode == control::name_of(control::ExchangeMode::suspend);
    const bool partition = command.mode == control::name_of(control::ExchangeMode::partition);
    const bool one_by_one = !command.all || suspend || partition;
    const std::string_view why = !command.all ? " is for --all"
                                 : suspend    ? " does not go with --mode suspend, which takes all "
                                                "machines, or none"
                                           : " does not go with --mode partition, which takes all "
                                             "machines, one by one, or none";
    const std::pair<const char*, bool> flags[] = {
        {"--concurrency", command.concurrency > 0 && (!command.all || partition)},
        {"--keep-going", command.keep_going && one_by_one},
        {"--again", command.again && one_by_one},
        {"--order", command.order_given && (!command.all || suspend)}};
    for (const auto& [flag, refused] : flags) {
        if (refused) {
            return Error(ErrorCode::invalid_argument, flag + std::string(why));
        }
    }
    return ok();
}

ExitCode exchange(const Session& session, const ExchangeCommand& command) {
    if (command.history) {
        return show_history(session, command);
    }
    if (command.all == !command.name.empty()) {
        return session.fail(
            Error(ErrorCode::invalid_argument, "say which machine, or --all; not both"));
    }
    const Status partition = check_partition(command);
    if (!partition.has_value()) {
        return session.fail(partition.error());
    }
    const Status flags = check_flags(command);
    if (!flags.has_value()) {
        return session.fail(flags.error());
    }
    if (command.dry_run) {
        return show_plan(session, command);
    }
    if (command.mode == control::name_of(control::ExchangeMode::suspend)) {
        if (command.timing != "late") {
            return session.fail(
                Error(ErrorCode::invalid_argument, "--timing early is for --mode hot-restart"));
        }
        return suspend_exchange(session,
                                {.machine = command.name,
                                 .prefix = command.program,
                                 .concurrency = command.concurrency,
                                 .deadline_ms = command.deadline_ms,
                                 .prepare_ms = command.prepare_ms});
    }
    if (command.all) {
        return exchange_all(session, command);
    }
    return operate(session,
                   daemon_for(session, command.name),
                   "/api/v1/machines/" + command.name + "/exchange",
                   body_of(command),
                   exchange_text);
}

std::set<std::string> mode_names() {
    std::set<std::string> names;
    for (const control::ExchangeModeEntry& entry : control::exchange_modes()) {
        names.emplace(entry.name);
    }
    return names;
}

void add_ways(CLI::App& exchange, ExchangeCommand& command) {
    exchange
        .add_option("--to",
                    command.program,
                    "The new godwit-vmm, or the prefix of the installation it is in (default: the "
                    "one beside godwitd)")
        ->type_name("PATH");
    exchange
        .add_option(
            "--mode",
            command.mode,
            "hot-restart (default): each new VMM stands beside the old one until it takes "
            "over; suspend: godwitd and all VMMs are replaced while the machines rest in "
            "memory; partition: a second godwitd beside this one takes the machines over by "
            "pointers")
        ->type_name("MODE")
        ->check(CLI::IsMember(mode_names()).description(""));
    exchange
        .add_option(
            "--timing",
            command.timing,
            "late (default): page tables of the new VMM are filled before the guest changes "
            "over; early: it changes over first, memory is fetched as it is touched and "
            "behind that")
        ->type_name("TIMING")
        ->check(CLI::IsMember({"late", "early"}).description(""));
    exchange
        .add_option("--target-cpus",
                    command.target_cpus,
                    "With --mode partition: the CPUs the new godwitd starts on, like 2-3; in the "
                    "end it has all")
        ->type_name("LIST");
    exchange
        .add_option("--deadline-ms",
                    command.deadline_ms,
                    "Longest time from when the devices come to rest until the new VMM runs the "
                    "guest (default 5000; with suspend: until those of a time are held, 10000)")
        ->type_name("MS")
        ->check(CLI::Range(1, 600'000).description(""));
    exchange
        .add_option("--prepare-ms",
                    command.prepare_ms,
                    "Longest time for building the machine in the new VMM, while the guest runs "
                    "(default 30000)")
        ->type_name("MS")
        ->check(CLI::Range(1, 600'000).description(""));
}

void add_all(CLI::App& exchange, ExchangeCommand& command) {
    exchange.add_flag("--all", command.all, "All machines of this host");
    exchange
        .add_option(
            "--concurrency",
            command.concurrency,
            "With --all: machines at a time (default: one per four processors, at most 8; with "
            "suspend: one per two processors)")
        ->type_name("N")
        ->check(CLI::Range(1, 64).description(""));
    exchange
        .add_option("--order",
                    command.order,
                    "With --all: name (default), smallest-first, largest-first (by memory) or "
                    "idle-first (by processor time)")
        ->type_name("ORDER")
        ->check(CLI::IsMember({"name", "smallest-first", "largest-first", "idle-first"})
                    .description(""));
    auto* const stop =
        exchange.add_flag("--stop-on-failure",
                          command.stop_on_failure,
                          "With --all: begin no more once one has failed, and none at all if "
                          "something speaks against one (default)");
    exchange
        .add_flag("--keep-going",
                  command.keep_going,
                  "With --all: go on with the others when one fails or is refused")
        ->excludes(stop);
    exchange.add_flag(
        "--again", command.again, "With --all: also machines that run the new build already");
}

} // namespace

void add_exchange_command(CLI::App& app, Invocation& invocation) {
    auto command = std::make_shared<ExchangeCommand>();
    CLI::App* const added =
        app.add_subcommand("exchange", "Put a new VMM under a running guest, or under all");
    added->add_option("NAME", command->name, "Name of the machine");
    add_ways(*added, *command);
    add_all(*added, *command);
    auto* const dry_run = added->add_flag(
        "--dry-run", command->dry_run, "Say what would happen and what speaks against it");
    added
        ->add_flag("--history",
                   command->history,
                   "Show past exchanges, of one machine or of all, instead of making one")
        ->excludes(dry_run);
    added->add_option("--limit", command->limit, "With --history: at most so many (default 20)")
        ->type_name("N")
        ->check(CLI::Range(1, 1'000).description(""));
    added->footer(
        "Ends in a report. If anything fails before the guest has changed its owner, it runs\n"
        "on where it was (exit code 1). Ctrl-C cancels: with --all no other machine is begun,\n"
        "those under way go back if they still can, and the rest stays at the old build.\n"
        "\n"
        "With --all every machine is checked first; each one that fails is rolled back by\n"
        "itself. Exit codes: 0 all run the new build; 1 some run the old one; 3 at least one\n"
        "failed after it had changed its owner. --dry-run: 1 if something speaks against it.\n"
        "\n"
        "--all --mode partition starts a second godwitd on --target-cpus, beside the present\n"
        "one; machines (all in the host's pool: run --memory SIZE,pool) move to it one by one by\n"
        "pointers, then it takes over everything else. If one cannot move, or on Ctrl-C, all go\n"
        "back. --to names the installation with the new godwitd and godwit-vmm.\n"
        "\n"
        "Examples:\n"
        "  godwit exchange web1\n"
        "  godwit exchange web1 --to /opt/godwit/bin/godwit-vmm --json\n"
        "  godwit exchange --all --to /opt/godwit-2.0 --dry-run\n"
        "  godwit exchange --all --to /opt/godwit-2.0 --order smallest-first --concurrency 4\n"
        "  godwit exchange --all --mode suspend --to /opt/godwit-2.0\n"
        "  godwit exchange --all --mode partition --target-cpus 2-3 --to /opt/godwit-2.0\n"
        "  godwit exchange --history web1");
    added->callback([command, added, &invocation] {
        command->order_given = added->count("--order") > 0;
        invocation.action = [command, &invocation] {
            return exchange(invocation.session, *command);
        };
    });
}

} // namespace godwit::cli
