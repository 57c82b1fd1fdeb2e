/// godwit-keeper: holds one suspended machine while its hypervisor is exchanged. Started by
/// godwitd; its flags are not meant for people.

#include "base/log.h"
#include "base/program.h"
#include "keeper/keeper.h"

#include <CLI/CLI.hpp>

#include <csignal>
#include <cstdio>

namespace {

int run(int argc, char** argv) {
    godwit::keeper::Options options;
    std::string instance;
    std::string level = "info";
    bool guard = false;
    CLI::App app("Holds one suspended virtual machine. Started by godwitd.", "godwit-keeper");
    app.set_version_flag("--version", godwit::version_text());
    app.add_option("--machine", options.machine, "Name of the machine")->required();
    app.add_option("--run-dir", options.run_directory, "Run directory of the host")->required();
    app.add_option("--instance", instance, "Token of this process: 8 hex digits")->required();
    app.add_option(
        "--ready-fd", options.ready_fd, "Descriptor told in one JSON line how the start went");
    app.add_option("--incoming-fd", options.incoming_fd, "Socket to the old VMM")->required();
    app.add_flag("--guard", guard, "Be the second holder; the socket leads to the first");
    app.add_option("--log-level", level, "debug, info, warn or error");
    CLI11_PARSE(app, argc, argv);

    const auto id = godwit::handover::parse_instance_id(instance);
    if (!id.has_value()) {
        std::fprintf(stderr, "godwit-keeper: --instance: %s\n", id.error().to_string().c_str());
        return 2;
    }
    options.instance = *id;
    options.part = guard ? godwit::keeper::Part::guard : godwit::keeper::Part::keeper;
    std::signal(SIGPIPE, SIG_IGN);
    godwit::log::configure((guard ? "godwit-guard " : "godwit-keeper ") + options.machine,
                           godwit::log::level_named(level));
    auto keeper = godwit::keeper::Keeper::create(std::move(options), godwit::sys::system_clock());
    if (!keeper.has_value()) {
        std::fprintf(stderr, "godwit-keeper: %s\n", keeper.error().to_string().c_str());
        return 1;
    }
    return (*keeper)->run();
}

} // namespace

int main(int argc, char** argv) {
    return godwit::run_program("godwit-keeper", [&] { return run(argc, argv); });
}
