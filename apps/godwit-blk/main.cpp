/// godwit-blk: disk images for guests of other hypervisors, through doors they know.

#include "base/log.h"
#include "base/program.h"
#include "doors/service.h"

#include <CLI/CLI.hpp>

#include <csignal>
#include <cstdio>
#include <string>
#include <utility>

namespace {

using namespace godwit;

struct Options {
    doors::ServeOptions serve;
    std::uint32_t lock_wait_seconds = 10;
    bool cached = false;
    bool json = false;
    int predecessor_number = -1;
};

void tell_ready(const Options& options, const doors::Service& service) {
    const doors::ExportedDisk& disk = service.disk();
    const std::string& socket = options.serve.vhost_socket;
    const std::string uri = service.nbd_uri();
    if (options.json) {
        std::printf("{\"ok\":true,\"image\":%s,\"bytes\":%llu",
                    log::json_quoted(disk.path()).c_str(),
                    static_cast<unsigned long long>(disk.geometry().bytes));
        const std::pair<const char*, const std::string&> places[] = {
            {"vhost_user_blk", socket}, {"nbd", uri}, {"control", service.control_path()}};
        for (const auto& [key, place] : places) {
            if (!place.empty()) {
                std::printf(",\"%s\":%s", key, log::json_quoted(place).c_str());
            }
        }
        std::printf("}\n");
    } else {
        std::printf("serving %s%s%s%s%s\n",
                    disk.path().c_str(),
                    socket.empty() ? "" : " at ",
                    socket.c_str(),
                    uri.empty() ? "" : " at ",
                    uri.c_str());
    }
    std::fflush(stdout);
}

Status serve(const Options& options) {
    const auto service = GODWIT_TRY(doors::Service::create(options.serve, sys::system_clock()));
    tell_ready(options, *service);
    return service->run();
}

Status take_over(const Options& options) {
    sys::MessageSocket predecessor{sys::Fd(options.predecessor_number)};
    const auto service = GODWIT_TRY(doors::Service::take_over(
        std::move(predecessor), options.serve.log_level, sys::system_clock()));
    return service->run();
}

/// What a predecessor starts its successor with.
CLI::App* add_take_over(CLI::App& app, Options& options) {
    auto* command = app.add_subcommand("take-over", "Go on for another godwit-blk, which says so");
    command->group("");
    command->add_option("--socket", options.predecessor_number, "Descriptor of the conversation")
        ->required()
        ->check(CLI::Range(3, 1'000'000));
    command->add_option("--log-level", options.serve.log_level, "debug, info, warn or error");
    return command;
}

int run(int argc, char** argv) {
    Options options;
    CLI::App app("Serves disk images to guests of other hypervisors.", "godwit-blk");
    app.set_version_flag("--version", version_text());
    app.require_subcommand(1);
    auto* command = app.add_subcommand("serve", "Serve a disk image until SIGTERM");
    command->add_option("IMAGE", options.serve.disk.path, "Raw image file or block device")
        ->required();
    auto* doors = command->add_option_group("doors", "At least one");
    doors->add_option("--vhost-user-blk",
                      options.serve.vhost_socket,
                      "UNIX socket for one vhost-user front end at a time");
    doors->add_option("--nbd",
                      options.serve.nbd_address,
                      "NBD for many clients: a path with a '/', or HOST:PORT (no TLS: keep it to "
                      "hosts you trust)");
    doors->require_option(1, 2);
    command->add_option("--name",
                        options.serve.name,
                        "Name of the NBD export (the empty one means it, too), and of this export "
                        "for 'godwit disk' "
                        "(default there: the image's name without its ending)");
    command
        ->add_option("--control",
                     options.serve.control,
                     "Control socket, for 'godwit disk' (default: exports/NAME.sock in the run "
                     "directory)")
        ->type_name("SOCK");
    command
        ->add_option("--place",
                     options.serve.disk.place,
                     "Where a move notes in which place the image lies from then on; it is opened "
                     "there the next time (default: IMAGE.place; a block device has none)")
        ->type_name("FILE");
    command->add_flag("--read-only", options.serve.disk.read_only, "Nobody may write");
    command
        ->add_option(
            "--queues", options.serve.blk.queues, "Queues at most, for all vCPUs of a guest")
        ->check(CLI::Range(1, 64))
        ->capture_default_str();
    command->add_option("--serial", options.serve.blk.serial, "Serial number, at most 20 bytes");
    command->add_flag("--cached", options.cached, "Through the host's page cache, not O_DIRECT");
    command
        ->add_option(
            "--profile",
            options.serve.disk.profile,
            "Be as slow as the device this profile describes (docs/formats/device-profile.md)")
        ->type_name("FILE");
    command
        ->add_option("--lock-wait",
                     options.lock_wait_seconds,
                     "Seconds to wait for an image that another process still holds")
        ->check(CLI::Range(0, 3600))
        ->capture_default_str();
    command->add_flag("--json", options.json, "Tell in one JSON line that it serves");
    command->add_option("--log-level", options.serve.log_level, "debug, info, warn or error");
    command->footer("QEMU: -object memory-backend-memfd,id=m,size=1G,share=on -machine "
                    "q35,memory-backend=m\n      -chardev socket,id=c,path=SOCK,reconnect=1 "
                    "-device vhost-user-blk-pci,chardev=c");
    const CLI::App* const successor = add_take_over(app, options);
    CLI11_PARSE(app, argc, argv);
    options.serve.disk.direct = !options.cached;
    options.serve.disk.lock_wait = std::chrono::seconds(options.lock_wait_seconds);
    std::signal(SIGPIPE, SIG_IGN);
    std::signal(SIGXFSZ, SIG_IGN); // An image that may not grow is a failed write.
    log::configure("godwit-blk", log::level_named(options.serve.log_level));
    const Status served = successor->parsed() ? take_over(options) : serve(options);
    if (!served.has_value()) {
        std::fprintf(stderr, "godwit-blk: %s\n", served.error().to_string().c_str());
        return 1;
    }
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    return run_program("godwit-blk", [&] { return run(argc, argv); });
}
