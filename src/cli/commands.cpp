#include "cli/commands.h"

#include "base/version.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <cstdio>
#include <cstring>

namespace godwit::cli {

std::unique_ptr<CLI::App> describe_cli(Invocation& invocation) {
    auto app = std::make_unique<CLI::App>(
        "Runs virtual machines on Linux/KVM that keep running while what is under them changes.",
        "godwit");
    app->fallthrough();
    app->require_subcommand(1);
    app->set_help_all_flag("--help-all", "Help for all commands");
    app->set_version_flag("--version",
                          std::string(version()) + " (build " + std::string(build_id()) + ")");
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

int run_cli(int argc, const char* const* argv) {
    Invocation invocation;
    const std::unique_ptr<CLI::App> app = describe_cli(invocation);
    try {
        app->parse(argc, argv);
    } catch (const CLI::Success& help) {
        return app->exit(help);
    } catch (const CLI::ParseError& error) {
        // The flag may stand behind the mistake.
        for (int i = 1; i < argc; ++i) {
            invocation.session.json =
                invocation.session.json || std::strcmp(argv[i], "--json") == 0;
        }
        std::string text = error.what();
        if (!invocation.session.json) {
            text += "\nTry --help.";
        }
        std::fprintf(
            stderr,
            "%s\n",
            invocation.session.json
                ? control::json_text(
                      {{"error", control::json_of(Error(ErrorCode::invalid_argument, text))}})
                      .c_str()
                : ("godwit: " + text).c_str());
        return static_cast<int>(ExitCode::usage);
    }
    return invocation.action ? static_cast<int>(invocation.action())
                             : static_cast<int>(ExitCode::usage);
}

} // namespace godwit::cli
