#include "vmm/service.h"

#include "base/log.h"
#include "machine/resources.h"
#include "memory/ram_file.h"
#include "sys/thread.h"
#include "vmm/pool_memory.h"
#include "vmm/snapshot.h"

#include <sys/socket.h>

#include <fcntl.h>
#include <unistd.h>

#include <csignal>

namespace godwit::vmm {

namespace {

Result<sys::Listener> control_listener(Options& options) {
    if (options.control_fd < 0) {
        return sys::Listener::create(options.control_path(), sys::SocketKind::messages);
    }
    const sys::Fd bound(std::exchange(options.control_fd, -1));
    return sys::Listener::listen(GODWIT_TRY(bound.duplicate()), options.control_path());
}

} // namespace

Result<std::unique_ptr<Service>> Service::create(Options options, const sys::Clock& clock) {
    std::unique_ptr<Service> service(
        new Service(std::move(options), clock, GODWIT_TRY(sys::Cancel::create())));
    service->started_at_ = clock.now();
    service->role_ = service->options_.incoming_fd >= 0 ? Role::successor : Role::owner;
    service->loop_ = GODWIT_TRY(sys::EventLoop::create());
    GODWIT_TRY(service->watch_signals());
    service->confined_ = service->options_.control_fd >= 0;
    service->control_ = GODWIT_TRY(ControlServer::create(
        *service->loop_,
        GODWIT_TRY(control_listener(service->options_)),
        [raw = service.get()](auto request) { raw->handle(std::move(request)); }));
    return service;
}

Service::~Service() {
    // run() returns between jobs; only a loop that failed leaves one, which the cancelled handover
    // ends.
    cancel_.request();
    if (peer_) {
        ::shutdown(peer_->fd().raw(), SHUT_RDWR);
    }
    for (std::jthread* thread : {&job_, &settle_}) {
        if (thread->joinable()) {
            thread->join();
        }
    }
    // The guest goes before the consoles its output ends in.
    machine_.reset();
}

/// SIGTERM asks the guest to power off, a second one ends it; SIGINT ends it at once.
Status Service::watch_signals() {
    end_signals_ =
        GODWIT_TRY(sys::EndSignals::watch(*loop_, [this, asked = false](int signal) mutable {
            const bool force = asked || signal == SIGINT || !stop_guest(false).has_value();
            asked = true;
            if (force) {
                log::info("ending_on_signal", {{"signal", signal}});
                end(1);
            }
        }));
    return ok();
}

int Service::run() {
    const Status begun = begin();
    if (!begun.has_value()) {
        log::error("start_failed", {{"reason", begun.error().to_string()}});
        tell_ready(begun);
        return 1;
    }
    const Status served = loop_->run();
    if (!served.has_value()) {
        log::error("control_loop_failed", {{"reason", served.error().to_string()}});
        return 1;
    }
    return exit_code_;
}

Status Service::begin() {
    if (options_.incoming_fd >= 0) {
        return begin_incoming();
    }
    GODWIT_TRY(options_.restore_directory.empty() ? begin_fresh() : begin_restored());
    GODWIT_TRY(consoles_->listen(options_.machine_directory()));
    GODWIT_TRY(machine_->start());
    set_state(RunState::running);
    tell_ready(ok());
    return ok();
}

void Service::tell_ready(const Status& status) {
    if (options_.ready_fd < 0) {
        return;
    }
    const sys::Fd fd(std::exchange(options_.ready_fd, -1));
    nlohmann::json line = {{"ok", true}};
    if (!status.has_value()) {
        line = {
            {"error",
             {{"code", name_of(status.error().code())}, {"message", status.error().to_string()}}}};
    }
    const std::string text =
        line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    discard(sys::write_all(fd, std::as_bytes(std::span(text))), "whoever started us has gone");
}

Status Service::own_new_machine(machine::MachineSpec spec) {
    record_ = GODWIT_TRY(handover::OwnerRecord::create(spec.id, options_.instance));
    make_consoles(spec);
    return ok();
}

Status Service::begin_fresh() {
    const std::string text =
        GODWIT_TRY(sys::read_file(options_.spec_path, machine::spec_json_bytes_max));
    machine::MachineSpec spec =
        GODWIT_TRY(machine::parse_machine_spec(text).with_context(options_.spec_path));
    machine::Resources resources = GODWIT_TRY(open_new_resources(spec, options_));
    GODWIT_TRY(own_new_machine(spec));
    machine_ = GODWIT_TRY(machine::Machine::build(
        spec, std::move(resources), machine::RamMapping::shared, machine_events(), clock_));
    return machine_->boot();
}

namespace {

/// RAM of a restored machine where it is copied: a new shared object or its runs of the pool.
Result<machine::Resources> restored_copy(const Snapshot& snapshot, Options& options) {
    machine::Resources resources = GODWIT_TRY(open_new_resources(snapshot.spec, options));
    const sys::Fd& ram =
        GODWIT_TRY(machine::find_resource(resources, machine::ram_resource_name)).get();
    GODWIT_TRY(
        memory::copy_ram(snapshot.ram, ram, snapshot.spec.memory.bytes, snapshot.spec.memory.runs));
    return resources;
}

/// The snapshot's own file, mapped copy-on-write.
Result<machine::Resources> restored_file(Snapshot& snapshot) {
    machine::Resources resources = GODWIT_TRY(machine::open_resources_except_ram(snapshot.spec));
    resources.push_back({.name = "ram", .fd = std::move(snapshot.ram)});
    return resources;
}

} // namespace

Status Service::begin_restored() {
    Snapshot snapshot = GODWIT_TRY(read_snapshot(options_.restore_directory));
    snapshot.spec.name = options_.machine;
    GODWIT_TRY(place_restored(snapshot.spec, options_));
    const bool copied =
        options_.restore_copies_ram || snapshot.spec.memory.kind == memory::RamKind::pool;
    machine::Resources resources = copied ? GODWIT_TRY(restored_copy(snapshot, options_))
                                          : GODWIT_TRY(restored_file(snapshot));
    GODWIT_TRY(own_new_machine(snapshot.spec));
    const auto mapping = copied ? machine::RamMapping::shared : machine::RamMapping::private_copy;
    machine_ = GODWIT_TRY(machine::Machine::build(
        snapshot.spec, std::move(resources), mapping, machine_events(), clock_));
    return machine_->load(std::move(snapshot.state),
                          {.clock = machine::Machine::ClockPolicy::frozen});
}

Status Service::begin_incoming() {
    auto source =
        std::make_shared<sys::MessageSocket>(sys::Fd(std::exchange(options_.incoming_fd, -1)));
    foreign_memory_ = GODWIT_TRY(foreign_memory(options_, clock_));
    tell_ready(ok());
    start_job("takeover", [this, source] {
        auto result = exchange::run_destination(
            {.self = options_.instance,
             .events = machine_events(),
             .adopt_endpoints =
                 [this](const machine::MachineSpec& spec,
                        const state::Section& section,
                        sys::FdManifest descriptors) {
                     make_consoles(spec);
                     return consoles_->adopt(section, std::move(descriptors));
                 },
             .endpoints_section = state::on_trial(Consoles::section),
             .clock = clock_,
             .memory = foreign_memory_.get(),
             .page_map = page_map_,
             .record_known =
                 [this](const std::string& machine_id, sys::Fd record) {
                     loop_->post([this, machine_id, record = std::move(record)]() mutable {
                         record_ahead_ = {.machine_id = machine_id, .fd = std::move(record)};
                     });
                 }},
            *source);
        // Functions kept by the loop must be copyable or moved; the pair is moved through a shared
        // pointer.
        auto kept = std::make_shared<decltype(result)>(std::move(result));
        loop_->post([this, kept, source] { taken(std::move(*kept), source); });
    });
    return ok();
}

/// The successor's job has ended, on the loop's thread.
void Service::taken(Result<std::pair<exchange::TakenMachine, exchange::LateWork>> result,
                    std::shared_ptr<sys::MessageSocket> source) {
    peer_.reset();
    if (!result.has_value()) {
        log::error("takeover_failed", {{"reason", result.error().to_string()}});
        job_done();
        end(1);
        return;
    }
    auto& [taken, work] = *result;
    machine_ = std::move(taken.machine);
    record_ = std::move(taken.record);
    record_ahead_.reset();
    role_ = Role::owner;
    set_state(taken.paused ? RunState::paused : RunState::running);
    log::info("taken_over", {{"machine", options_.machine}, {"epoch", taken.ownership.epoch}});
    listen_consoles();
    settle_ = sys::start_thread("settle", [this, source, work = std::move(work)]() mutable {
        exchange::answer_settle(*machine_, page_map_, std::move(work), *source);
    });
    consoles_->thaw_here();
    // Told to end meanwhile: the guest is ours now and is asked first.
    stop_pending_ = std::exchange(ending_, false) || stop_pending_;
    job_done();
}

/// Paths are only there once the process has left its confinement.
void Service::listen_consoles() {
    const Status listening = confined_ ? ok() : consoles_->listen(options_.machine_directory());
    if (!listening.has_value()) {
        log::error("console_listen_failed", {{"reason", listening.error().to_string()}});
    }
}

void Service::make_consoles(const machine::MachineSpec& spec) {
    consoles_ = std::make_unique<Consoles>(
        *loop_,
        spec,
        [this](std::string_view port, std::span<const std::byte> bytes) -> std::size_t {
            return machine_ ? machine_->console_input(port, bytes) : 0;
        });
}

machine::MachineEvents Service::machine_events() {
    return {
        .stopped =
            [this](machine::StopReason reason, std::string detail) {
                loop_->post(
                    [this, reason, text = std::move(detail)] { guest_stopped(reason, text); });
            },
        .console_output =
            [this](std::string_view port, std::span<const std::byte> bytes) {
                consoles_->write(port, bytes);
            },
        .console_ready =
            [this](std::string_view port) {
                loop_->post([this, name = std::string(port)] { consoles_->input_ready(name); });
            },
        .disk_error =
            [this](std::string_view disk, std::string detail) {
                loop_->post([this, name = std::string(disk), text = std::move(detail)] {
                    control_->broadcast(
                        {{"event", "disk_error"}, {"disk", name}, {"message", text}});
                });
            },
        .disk_moved = [this](std::size_t disk, const machine::DiskSpec& now) -> Status {
            return document_.set_disk(disk, now);
        },
        .disk_move_ended =
            [this](std::string_view /*disk*/) { loop_->post([this] { settle_disks(); }); },
        .disk_pressure =
            [this](std::string_view disk, std::string_view delta, std::string_view pressure) {
                tell_pressure(disk, delta, pressure);
            },
    };
}

void Service::guest_stopped(machine::StopReason reason, const std::string& detail) {
    if (role_ == Role::retired || state_ == RunState::stopped) {
        return;
    }
    if (reason == machine::StopReason::rebooted && (!job_name_.empty() || confined_)) {
        // A guest that has ended cannot be handed over or saved: the job fails, then the guest
        // reboots. Its kernel cannot be read from inside a confinement.
        reboot_pending_ = true;
        if (!job_name_.empty()) {
            cancel_.request();
        }
        return;
    }
    if (reason == machine::StopReason::rebooted && disks_move()) {
        // The next machine is built over one image for each disk.
        reboot_pending_ = true;
        cancel_disk_moves();
        return;
    }
    if (reason == machine::StopReason::rebooted) {
        const Status again = reboot();
        if (again.has_value()) {
            control_->broadcast({{"event", "rebooted"}});
            return;
        }
        log::error("reboot_failed", {{"reason", again.error().to_string()}});
    }
    set_state(RunState::stopped);
    log::info("guest_stopped", {{"reason", name_of(reason)}, {"detail", detail}});
    control_->broadcast({{"event", "stopped"}, {"reason", name_of(reason)}, {"detail", detail}});
    end(reason == machine::StopReason::powered_off ? 0 : 1);
}

/// The same machine from its kernel again, over the same open files.
Status Service::reboot() {
    if (settle_.joinable()) {
        settle_.join(); // It reads the memory of the machine that goes now.
    }
    machine::Resources resources = GODWIT_TRY(machine_->duplicate_resources());
    const machine::MachineSpec spec = machine_->spec();
    const machine::RamMapping mapping = machine_->ram_mapping();
    machine_.reset();
    machine_ = GODWIT_TRY(
        machine::Machine::build(spec, std::move(resources), mapping, machine_events(), clock_));
    GODWIT_TRY(machine_->boot());
    GODWIT_TRY(machine_->start());
    set_state(RunState::running);
    return ok();
}

void Service::set_state(RunState state) {
    if (state_ != state) {
        state_ = state;
        control_->broadcast({{"event", "state"}, {"state", name_of(state)}});
    }
}

void Service::end(int exit_code) {
    exit_code_ = exit_code;
    const bool disks = role_ == Role::owner && disks_move();
    if (job_name_.empty() && !disks) {
        finish();
        return;
    }
    ending_ = true;
    if (disks) {
        cancel_disk_moves(); // settle_disks() finishes.
    }
    cancel_.request();
    if (peer_) {
        ::shutdown(peer_->fd().raw(), SHUT_RDWR);
    }
}

void Service::finish() {
    if (consoles_) {
        // What a retired owner still holds is its successor's to say.
        if (role_ == Role::owner) {
            consoles_->flush_all();
        }
        consoles_->close();
    }
    // After the answers and events posted so far.
    loop_->post([this] { loop_->stop(); });
}

} // namespace godwit::vmm
