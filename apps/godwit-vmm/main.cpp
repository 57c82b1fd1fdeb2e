/// godwit-vmm: the process of one machine. Started by godwitd; its flags are not meant for people,
/// who use `godwit run` and `godwit exchange`.

#include "base/log.h"
#include "base/program.h"
#include "sys/prefault.h"
#include "sys/refusal.h"
#include "vmm/plan.h"
#include "vmm/service.h"

#include <CLI/CLI.hpp>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace {

using godwit::ErrorCode;

int serve(godwit::vmm::Options options) {
    auto service = godwit::vmm::Service::create(std::move(options), godwit::sys::system_clock());
    if (!service.has_value()) {
        std::fprintf(stderr, "godwit-vmm: %s\n", service.error().to_string().c_str());
        return 1;
    }
    return (*service)->run();
}

int run(int argc, char** argv) {
    godwit::sys::keep_freed_memory();
    if (argc == 2 && std::string_view(argv[1]) == "--describe") {
        const std::string description = godwit::vmm::describe_build();
        return std::fputs(description.c_str(), stdout) < 0 ? 1 : 0;
    }
    godwit::vmm::Options options;
    std::string instance;
    std::string level = "info";
    CLI::App app("Runs one virtual machine. Started by godwitd.", "godwit-vmm");
    app.footer("godwit-vmm --describe tells in one line of JSON what this build takes over.");
    app.set_version_flag("--version", godwit::version_text());
    app.add_option("--machine", options.machine, "Name of the machine")->required();
    app.add_option("--run-dir", options.run_directory, "Run directory of the host")->required();
    app.add_option("--instance", instance, "Token of this process: 8 hex digits")->required();
    app.add_option(
        "--ready-fd", options.ready_fd, "Descriptor told in one JSON line how the start went");
    app.add_option("--log-level", level, "debug, info, warn or error");
    app.add_option("--control-fd",
                   options.control_fd,
                   "The bound control socket of a process that is confined until it is let out");
    auto* source = app.add_option_group("source", "Where the machine comes from");
    source->add_option("--spec", options.spec_path, "Machine document of a new machine");
    source->add_option("--restore", options.restore_directory, "Directory of a snapshot");
    source->add_option(
        "--incoming-fd", options.incoming_fd, "Socket to the present owner (exchange)");
    source->require_option(1);
    app.add_flag(
        "--copy-ram", options.restore_copies_ram, "With --restore: RAM is copied, not mapped");
    app.add_option("--pool-fd", options.pool_fd, "The host's memory pool, for RAM of kind pool");
    app.add_option("--pool-table-fd", options.pool_table_fd, "The ownership table of that pool");
    app.add_option("--placement",
                   options.placement_path,
                   "With --restore: machine document whose runs say where RAM lies in the pool");
    app.add_option("--region-fd",
                   options.region_fd,
                   "Region shared with the hypervisor instance the machine comes from");
    app.add_option("--region-slot", options.region_slot, "Where in it the machine is offered");
    app.add_option("--region-epoch", options.region_epoch, "Epoch of that offer");
    CLI11_PARSE(app, argc, argv);

    const auto id = godwit::handover::parse_instance_id(instance);
    if (!id.has_value()) {
        std::fprintf(stderr, "godwit-vmm: --instance: %s\n", id.error().to_string().c_str());
        return 2;
    }
    options.instance = *id;
    // Whoever started us may be gone before it has read how the start went.
    std::signal(SIGPIPE, SIG_IGN);
    // A file that may not grow is a failed write, of a snapshot or of the guest, not our end.
    std::signal(SIGXFSZ, SIG_IGN);
    if (options.control_fd >= 0) {
        godwit::sys::note_faults();
    }
    godwit::log::configure("godwit-vmm " + options.machine, godwit::log::level_named(level));
    return serve(std::move(options));
}

} // namespace

int main(int argc, char** argv) {
    return godwit::run_program("godwit-vmm", [&] { return run(argc, argv); });
}
