/// completion, and the hidden command that writes the manual pages at build time.

#include "cli/commands.h"
#include "cli/manual.h"
#include "sys/fd.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <cstdio>
#include <filesystem>
#include <memory>

namespace godwit::cli {

namespace {

ExitCode write_manual(const Session& session, const CLI::App& app, const std::string& directory) {
    std::error_code error;
    std::filesystem::create_directories(directory, error);
    for (const auto& [file, text] : manual_pages(app)) {
        const std::string path = std::filesystem::path(directory) / file;
        const Status written = sys::write_file_atomically(path, text);
        if (!written.has_value()) {
            return session.fail(written.error());
        }
    }
    return ExitCode::done;
}

} // namespace

void add_generators(CLI::App& app, Invocation& invocation) {
    auto shell = std::make_shared<std::string>();
    CLI::App* const completion =
        app.add_subcommand("completion", "Print a script that completes commands");
    completion->add_option("SHELL", *shell, "bash")
        ->required()
        ->check(CLI::IsMember({"bash"}).description(""));
    completion->footer("Examples:\n  source <(godwit completion bash)");
    completion->callback([shell, &app, &invocation] {
        invocation.action = [&app] {
            const std::string script = bash_completion(app);
            std::fwrite(script.data(), 1, script.size(), stdout);
            return ExitCode::done;
        };
    });

    CLI::App* const generate =
        app.add_subcommand("generate", "Write what is made from this program");
    generate->group(""); // For the build, not for people.
    generate->require_subcommand(1);
    auto directory = std::make_shared<std::string>();
    CLI::App* const man = generate->add_subcommand("man", "Manual pages");
    man->add_option("DIR", *directory, "Where to")->required();
    man->callback([directory, &app, &invocation] {
        invocation.action = [directory, &app, &invocation] {
            return write_manual(invocation.session, app, *directory);
        };
    });
}

} // namespace godwit::cli
