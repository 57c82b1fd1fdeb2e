/// godwit-blk: disk images for guests of other hypervisors, through doors they know.

#include "base/log.h"
#include "base/program.h"
#include "base/scope_guard.h"
#include "doors/exported_disk.h"
#include "doors/nbd/server.h"
#include "doors/vhost/server.h"
#include "sys/thread.h"
#include "virtio/blk/blk_device.h"

#include <CLI/CLI.hpp>

#include <csignal>
#include <cstdio>
#include <string>
#include <thread>

namespace {

using namespace godwit;

struct Options {
    doors::DiskOptions disk;
    std::string vhost_socket;
    std::string nbd_address;
    std::string name;
    virtio::BlkOptions blk{.instance = 0, .serial = "", .queues = 16, .queue_size = 128};
    std::uint32_t lock_wait_seconds = 10;
    bool cached = false;
    bool json = false;
    std::string log_level = "info";
};

/// SIGTERM and SIGINT, taken by wait() on the main thread and by nobody else.
class EndSignals {
  public:
    EndSignals() {
        sigemptyset(&signals_);
        sigaddset(&signals_, SIGTERM);
        sigaddset(&signals_, SIGINT);
        ::pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
    }
    [[nodiscard]] int wait() const {
        int taken = 0;
        while (::sigwait(&signals_, &taken) != 0) {
        }
        return taken;
    }

  private:
    sigset_t signals_{};
};

/// vhost-user needs a thread that waits for its front end.
class VhostDoor {
  public:
    static Result<std::unique_ptr<VhostDoor>> open(const Options& options,
                                                   doors::ExportedDisk& disk) {
        std::unique_ptr<VhostDoor> made(new VhostDoor());
        made->device_ = GODWIT_TRY(virtio::BlkDevice::create({.options = options.blk,
                                                              .disk = disk.view(),
                                                              .loop = disk.loop(),
                                                              .health_changed = {}}));
        made->server_ =
            GODWIT_TRY(doors::vhost::Server::create(options.vhost_socket, *made->device_));
        made->thread_ = sys::start_thread("vhost", [door = made.get()] {
            door->served_ = door->server_->run();
            if (!door->served_.has_value()) {
                ::kill(::getpid(), SIGTERM);
            }
        });
        return made;
    }
    /// What is in flight is finished; the device is at rest.
    Status close() {
        server_->stop();
        thread_.join();
        return served_;
    }

  private:
    VhostDoor() = default;
    std::unique_ptr<virtio::BlkDevice> device_;
    std::unique_ptr<doors::vhost::Server> server_;
    Status served_;
    std::jthread thread_;
};

void tell_ready(const Options& options, const doors::ExportedDisk& disk, const std::string& uri) {
    const std::string& socket = options.vhost_socket;
    if (options.json) {
        std::printf("{\"ok\":true,\"image\":%s,\"bytes\":%llu",
                    log::json_quoted(disk.path()).c_str(),
                    static_cast<unsigned long long>(disk.geometry().bytes));
        if (!socket.empty()) {
            std::printf(",\"vhost_user_blk\":%s", log::json_quoted(socket).c_str());
        }
        if (!uri.empty()) {
            std::printf(",\"nbd\":%s", log::json_quoted(uri).c_str());
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
    const EndSignals signals;
    const auto disk = GODWIT_TRY(doors::ExportedDisk::open(options.disk, sys::system_clock()));
    std::unique_ptr<doors::nbd::Server> nbd;
    if (!options.nbd_address.empty()) {
        nbd = GODWIT_TRY(doors::nbd::Server::create(options.nbd_address, *disk, options.name));
    }
    std::unique_ptr<VhostDoor> vhost;
    if (!options.vhost_socket.empty()) {
        vhost = GODWIT_TRY(VhostDoor::open(options, *disk));
    }
    tell_ready(options, *disk, nbd ? nbd->uri() : std::string());
    const int signal = signals.wait();
    log::info("ending", {{"signal", signal}});
    if (nbd) {
        nbd->stop();
    }
    return vhost ? vhost->close() : ok();
}

int run(int argc, char** argv) {
    Options options;
    CLI::App app("Serves disk images to guests of other hypervisors.", "godwit-blk");
    app.set_version_flag("--version", version_text());
    app.require_subcommand(1);
    auto* command = app.add_subcommand("serve", "Serve a disk image until SIGTERM");
    command->add_option("IMAGE", options.disk.path, "Raw image file or block device")->required();
    auto* doors = command->add_option_group("doors", "At least one");
    doors->add_option("--vhost-user-blk",
                      options.vhost_socket,
                      "UNIX socket for one vhost-user front end at a time");
    doors->add_option("--nbd",
                      options.nbd_address,
                      "NBD for many clients: a path with a '/', or HOST:PORT (no TLS: keep it to "
                      "hosts you trust)");
    doors->require_option(1, 2);
    command->add_option(
        "--name", options.name, "Name of the NBD export; the empty one means it, too");
    command->add_flag("--read-only", options.disk.read_only, "Nobody may write");
    command->add_option("--queues", options.blk.queues, "Queues at most, for all vCPUs of a guest")
        ->check(CLI::Range(1, 64))
        ->capture_default_str();
    command->add_option("--serial", options.blk.serial, "Serial number, at most 20 bytes");
    command->add_flag("--cached", options.cached, "Through the host's page cache, not O_DIRECT");
    command
        ->add_option(
            "--profile",
            options.disk.profile,
            "Be as slow as the device this profile describes (docs/formats/device-profile.md)")
        ->type_name("FILE");
    command
        ->add_option("--lock-wait",
                     options.lock_wait_seconds,
                     "Seconds to wait for an image that another process still holds")
        ->check(CLI::Range(0, 3600))
        ->capture_default_str();
    command->add_flag("--json", options.json, "Tell in one JSON line that it serves");
    command->add_option("--log-level", options.log_level, "debug, info, warn or error");
    command->footer("QEMU: -object memory-backend-memfd,id=m,size=1G,share=on -machine "
                    "q35,memory-backend=m\n      -chardev socket,id=c,path=SOCK,reconnect=1 "
                    "-device vhost-user-blk-pci,chardev=c");
    CLI11_PARSE(app, argc, argv);
    options.disk.direct = !options.cached;
    options.disk.lock_wait = std::chrono::seconds(options.lock_wait_seconds);
    std::signal(SIGPIPE, SIG_IGN);
    std::signal(SIGXFSZ, SIG_IGN); // An image that may not grow is a failed write.
    log::configure("godwit-blk", log::level_named(options.log_level));
    const Status served = serve(options);
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
