#include "cli/commands.h"

#include "base/program.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstring>

namespace godwit::cli {

std::unique_ptr<CLI::App> describe_cli(Invocation& invocation) {
    auto app = std::make_unique<CLI::App>(
        "Runs virtual machines on Linux/KVM that keep running while what is under them changes.",
        "godwit");
    app->fallthrough();
    app->require_subcommand(1);
    app->set_help_all_flag("--help-all", "Help for all commands");
    app->set_version_flag("--version", version_text());
    app->add_flag("--json", invocation.session.json, "Print JSON for programs instead of text");
    app->add_option("--run-dir",
                    invocation.session.run_directory,
                    "Run directory of the host (default: GODWIT_RUN_DIR, or one per user)")
        ->type_name("DIR");
    app->footer("Examples:\n"
                "  godwit run web1 --kernel vmlinuz --initrd initrd.img --cmdline console=ttyS0\n"
                "  godwit console web1\n"
                "  godwit exchange web1 --to /opt/new/godwit-vmm\n"
                "\n"
                "Exit codes: 0 done; 1 failed, nothing changed and the guest runs where it was;\n"
                "2 wrong usage or input; 3 failed after the guest had changed its owner.");
    add_machine_commands(*app, invocation);
    add_inventory_commands(*app, invocation);
    add_console_command(*app, invocation);
    add_control_commands(*app, invocation);
    add_handover_commands(*app, invocation);
    add_generators(*app, invocation);
    return app;
}

namespace {

/// What a mistake on the command line is answered with.
std::string mistake_text(bool json, const std::string& what) {
    if (!json) {
        return "godwit: " + what + "\nTry --help.\n";
    }
    const Error error(ErrorCode::invalid_argument, what);
    return control::json_text({{"error", control::json_of(error)}}) + "\n";
}

} // namespace

ExitCode parse_cli(CLI::App& app, int argc, const char* const* argv) {
    // Looked for by hand, because it may stand behind the mistake.
    const bool json = std::any_of(
        argv, argv + argc, [](const char* word) { return std::strcmp(word, "--json") == 0; });
    app.failure_message([json](const CLI::App*, const CLI::Error& error) {
        return mistake_text(json, error.what());
    });
    const auto parsed = [&]() -> int {
        CLI11_PARSE(app, argc, argv);
        return 0;
    };
    return parsed() == 0 ? ExitCode::done : ExitCode::usage;
}

int run_cli(int argc, const char* const* argv) {
    Invocation invocation;
    const std::unique_ptr<CLI::App> app = describe_cli(invocation);
    const ExitCode parsed = parse_cli(*app, argc, argv);
    if (parsed != ExitCode::done || !invocation.action) {
        return static_cast<int>(parsed); // A mistake, or help was asked for and given.
    }
    return static_cast<int>(invocation.action());
}

} // namespace godwit::cli
