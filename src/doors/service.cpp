#include "doors/service.h"

#include "base/log.h"
#include "sys/run_path.h"
#include "sys/service_manager.h"
#include "sys/unix_socket.h"

#include <unistd.h>

#include <csignal>
#include <filesystem>

namespace godwit::doors {

namespace {

/// busy if another process serves requests at `path`.
Status check_free(const std::string& path) {
    if (!sys::MessageSocket::connect(path).has_value()) {
        return ok(); // Nobody is there, or somebody who is gone.
    }
    return Error(ErrorCode::busy,
                 "another export is reached at '" + path +
                     "': give this one another --name, or --control");
}

} // namespace

std::string export_name(const ServeOptions& options) {
    return options.name.empty() ? std::filesystem::path(options.disk.path).stem().string()
                                : options.name;
}

Result<std::unique_ptr<Service>> Service::create(ServeOptions options, const sys::Clock& clock) {
    std::unique_ptr<Service> made(new Service(std::move(options), clock));
    GODWIT_TRY(made->prepare_process());
    made->disk_ = GODWIT_TRY(ExportedDisk::open(made->options_.disk, clock));
    GODWIT_TRY(made->open_control());
    GODWIT_TRY(made->open_doors());
    return made;
}

Status Service::prepare_process() {
    started_at_ = clock_.now();
    std::error_code error;
    own_program_ = std::filesystem::read_symlink("/proc/self/exe", error).string();
    loop_ = GODWIT_TRY(sys::EventLoop::create());
    return watch_signals(); // Before there are threads, which inherit the mask.
}

Service::~Service() {
    control_.reset();
    if (nbd_) {
        nbd_->stop();
    }
    vhost_.reset();
    nbd_.reset();
}

/// SIGTERM and SIGINT end the process; the second one also while a disk moves, if that is complete
/// anyway.
Status Service::watch_signals() {
    end_signals_ = GODWIT_TRY(sys::EndSignals::watch(*loop_, [this](int signal) {
        log::info("ending", {{"signal", signal}});
        end(ok());
    }));
    return ok();
}

/// Without a place for it that was asked for, a disk is served rather than none.
Status Service::open_control() {
    const bool asked = !options_.control.empty();
    const auto listen = [&]() -> Status {
        if (!asked) {
            const std::string run = sys::default_run_path();
            const std::string name = export_name(options_);
            GODWIT_TRY(sys::check_export_name(name));
            GODWIT_TRY(sys::prepare_private_directory(run));
            GODWIT_TRY(sys::prepare_private_directory(sys::exports_folder(run)));
            options_.control = sys::export_socket(run, name);
        }
        GODWIT_TRY(check_free(options_.control));
        control_ = GODWIT_TRY(sys::ControlServer::create(
            *loop_,
            GODWIT_TRY(sys::Listener::create(options_.control, sys::SocketKind::messages)),
            [this](const sys::ControlServer::Request& request) { handle(request); }));
        return ok();
    };
    Status listening = listen();
    if (listening.has_value() || asked || listening.error().code() == ErrorCode::busy) {
        return listening;
    }
    log::warn("no_control_socket", {{"reason", listening.error().to_string()}});
    options_.control.clear();
    return ok();
}

Status Service::open_doors() {
    if (!options_.nbd_address.empty()) {
        nbd_ = GODWIT_TRY(nbd::Server::create(options_.nbd_address, *disk_, options_.name));
    }
    if (!options_.vhost_socket.empty()) {
        vhost_ = GODWIT_TRY(vhost::Door::open(door_args()));
    }
    return ok();
}

vhost::Door::Args Service::door_args() {
    return {.socket = options_.vhost_socket,
            .options = options_.blk,
            .disk = *disk_,
            .failed = [this](const Error& reason) {
                loop_->post([this, reason] { end(Status(reason)); });
            }};
}

/// Nobody is served worse for it if that fails.
void Service::tell_manager(const std::string& lines) {
    const Status told = sys::tell_service_manager(lines);
    if (!told.has_value()) {
        log::warn("service_manager_not_told", {{"reason", told.error().to_string()}});
    }
}

Status Service::run() {
    tell_manager("READY=1");
    GODWIT_TRY(loop_->run());
    return outcome_;
}

void Service::end(Status outcome) {
    const bool again = std::exchange(ending_, true);
    if (!outcome.has_value()) {
        outcome_ = std::move(outcome);
    }
    if (exchanging_) {
        return; // Whoever serves after it ends.
    }
    if (disk_->moving() == ExportedDisk::Moving::no) {
        loop_->stop();
        return;
    }
    // The users go on meanwhile. Of one that is at its end already nothing is cancelled.
    const Status cancelled = disk_->cancel_move();
    log::info("ending_after_the_move",
              {{"cancelled", cancelled.has_value()}, {"asked_again", again}});
}

void Service::move_ended() {
    const bool settled = disk_->settle_move();
    if (control_) {
        control_->broadcast({{"event", "disk_move"},
                             {"disk", exported_disk_name},
                             {"state", settled ? "ended" : "stranded"}});
    }
    if (ending_ && settled) {
        loop_->stop();
    }
}

} // namespace godwit::doors
