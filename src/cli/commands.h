#pragma once

/// The commands of `godwit`, described for CLI11. Each function adds a group of subcommands; a
/// parsed one leaves its action in Invocation. Manual pages and completion are made from the same
/// descriptions.

#include "cli/session.h"

#include <functional>
#include <memory>

namespace CLI {
class App;
}

namespace godwit::cli {

/// What the command line asks for, once it is parsed.
struct Invocation {
    Session session;
    std::function<ExitCode()> action;
};

void add_machine_commands(CLI::App& app, Invocation& invocation);   ///< run, restore
void add_inventory_commands(CLI::App& app, Invocation& invocation); ///< ps, info, events, version
void add_control_commands(CLI::App& app, Invocation& invocation);   ///< pause, resume, stop, ...
void add_handover_commands(CLI::App& app, Invocation& invocation);  ///< snapshot, recover, exchange
void add_disk_commands(CLI::App& app, Invocation& invocation); ///< disk move, list, cancel, ...
/// disk snapshot, merge, check
void add_disk_layer_commands(CLI::App& disk, Invocation& invocation);
void add_exchange_command(CLI::App& app, Invocation& invocation);
void add_console_command(CLI::App& app, Invocation& invocation);
void add_generators(CLI::App& app, Invocation& invocation); ///< completion, generate

/// The whole command line.
[[nodiscard]] std::unique_ptr<CLI::App> describe_cli(Invocation& invocation);

/// Parses; mistakes and asked-for help are printed. Help is no mistake but leaves no action.
[[nodiscard]] ExitCode parse_cli(CLI::App& app, int argc, const char* const* argv);

/// Parses and runs; the exit code of the program.
[[nodiscard]] int run_cli(int argc, const char* const* argv);

} // namespace godwit::cli
