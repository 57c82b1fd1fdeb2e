#include "base/log.h"
#include "sys/thread.h"
#include "vmm/service.h"
#include "vmm/snapshot.h"

#include <sys/socket.h>

namespace godwit::vmm {

namespace {

constexpr std::uint64_t deadline_ms_max = 600'000;

} // namespace

void Service::start_job(std::string name, std::move_only_function<void()> body) {
    if (job_.joinable()) {
        job_.join(); // Its end has been served: only its last instructions are left.
    }
    job_name_ = std::move(name);
    cancel_.reset();
    job_ = sys::start_thread(job_name_, std::move(body));
}

void Service::job_done() {
    job_name_.clear();
    take_over_disks(); // One whose move ended meanwhile had to wait.
    if (disks_move() && (ending_ || reboot_pending_)) {
        cancel_disk_moves();
        return; // settle_disks() goes on.
    }
    if (ending_) {
        finish();
    } else if (role_ == Role::owner && std::exchange(reboot_pending_, false)) {
        guest_stopped(machine::StopReason::rebooted, "while a job was running");
    } else if (role_ == Role::owner && std::exchange(stop_pending_, false)) {
        if (!stop_guest(false).has_value()) {
            end(1);
        }
    }
}

namespace {

Result<handover::Limits> limits_from(const nlohmann::json& params) {
    handover::Limits limits;
    const std::pair<const char*, std::chrono::milliseconds*> wanted[] = {
        {"deadline_ms", &limits.commit_timeout},
        {"prepare_ms", &limits.prepare_timeout},
    };
    for (const auto& [key, limit] : wanted) {
        if (!params.contains(key)) {
            continue;
        }
        const nlohmann::json& number = params[key];
        if (!number.is_number_unsigned() || number.get<std::uint64_t>() == 0 ||
            number.get<std::uint64_t>() > deadline_ms_max) {
            return Error(ErrorCode::invalid_argument,
                         "the parameter \"" + std::string(key) + "\" must be between 1 and " +
                             std::to_string(deadline_ms_max));
        }
        *limit = std::chrono::milliseconds(number.get<std::uint64_t>());
    }
    limits.hello_timeout = std::min(limits.hello_timeout, limits.prepare_timeout);
    return limits;
}

Result<handover::Timing> timing_from(const nlohmann::json& params) {
    if (!params.contains("timing")) {
        return handover::Timing::late;
    }
    const auto timing = params["timing"].is_string()
                            ? handover::timing_named(params["timing"].get<std::string>())
                            : std::nullopt;
    if (!timing.has_value()) {
        return Error(ErrorCode::invalid_argument,
                     R"(the parameter "timing" must be late or early)");
    }
    return *timing;
}

} // namespace

void Service::start_exchange(ControlServer::Request request) {
    const Status owner = check_owner();
    if (!owner.has_value()) {
        request.reply.error(owner.error());
        return;
    }
    if (request.fds.size() != 1) {
        request.reply.error(
            Error(ErrorCode::invalid_argument,
                  "an exchange comes with one descriptor, the socket of the successor"));
        return;
    }
    const auto limits = limits_from(request.params);
    if (!limits.has_value()) {
        request.reply.error(limits.error());
        return;
    }
    const auto timing = timing_from(request.params);
    if (!timing.has_value()) {
        request.reply.error(timing.error());
        return;
    }
    handover::Ownership expected = record_->read();
    if (request.params.contains("epoch")) {
        const nlohmann::json& epoch = request.params["epoch"];
        if (!epoch.is_number_unsigned() || epoch.get<std::uint64_t>() > UINT32_MAX) {
            request.reply.error(
                Error(ErrorCode::invalid_argument, "the parameter \"epoch\" is no epoch"));
            return;
        }
        expected.epoch = epoch.get<std::uint32_t>();
    }
    auto successor = std::make_shared<sys::MessageSocket>(std::move(request.fds[0]));
    start_job(
        "exchange",
        [this, successor, reply = request.reply, limits = *limits, timing = *timing, expected] {
            handover::Report report = exchange::run_source(
                {.machine = *machine_,
                 .endpoints = *consoles_,
                 .record = *record_,
                 .self = options_.instance,
                 .expected = expected,
                 .limits = limits,
                 .timing = timing,
                 .clock = clock_,
                 .cancel = cancel_,
                 .page_map = page_map_,
                 .progress =
                     [this](handover::Phase phase) {
                         loop_->post([this, phase] {
                             control_->broadcast(
                                 {{"event", "exchange"}, {"phase", handover::name_of(phase)}});
                         });
                     }},
                *successor);
            loop_->post([this, report = std::move(report), reply, successor] {
                exchanged(report, reply, successor);
            });
        });
}

void Service::exchanged(const handover::Report& report,
                        const ControlServer::Reply& reply,
                        std::shared_ptr<sys::MessageSocket> successor) {
    log::info("exchange_ended",
              {{"outcome", handover::name_of(report.outcome)},
               {"step", report.failed_step},
               {"reason", report.reason},
               {"blackout_us", report.blackout_us}});
    reply.result(nlohmann::json::parse(handover::to_json(report), nullptr, false));
    if (report.outcome == handover::Outcome::rolled_back) {
        job_done();
        return;
    }
    role_ = Role::retired;
    // Only the unconfirmed claim on our own offer can be reversed, whatever the record said when it
    // was read: a later claim is another owner's to take back.
    lost_to_ = handover::Ownership{.owner = report.after.owner,
                                   .epoch = report.before.epoch + 1,
                                   .tenure = handover::Tenure::claimed};
    ran_before_ = state_ == RunState::running;
    job_done();
    if (ending_) {
        return;
    }
    if (report.outcome == handover::Outcome::done) {
        end(0);
        return;
    }
    // The consoles stay frozen as they are: a recovery goes on with the same clients.
    set_state(RunState::frozen);
    peer_ = std::move(successor);
    await_successor();
}

/// The machine was claimed and nobody said that it runs. RAM and state stay here, at rest, until
/// the successor says so after all; if it dies without a word, for whoever recovers them.
void Service::await_successor() {
    start_job("await", [this, successor = peer_] {
        const auto running =
            exchange::expect<exchange::Running>(*successor, std::chrono::milliseconds(-1));
        loop_->post([this, successor, runs_there = running.has_value()] {
            if (peer_ != successor) {
                return; // The guest was reclaimed meanwhile.
            }
            peer_.reset();
            job_done();
            // It may have handed the machine on since: what counts is that nobody can reverse the
            // claim on our offer any more.
            if (runs_there && !ending_ && !is_reclaimable()) {
                end(0);
            }
        });
    });
}

/// Whether this process keeps the only copy of the guest that may run: nobody has run one since.
bool Service::is_reclaimable() const {
    return state_ == RunState::frozen && lost_to_ && record_->read() == *lost_to_;
}

namespace {

/// Before anything is paused; every blocker at once.
Status check_savable(const machine::Machine& machine) {
    std::string text;
    for (const std::string& blocker : machine.save_blockers()) {
        text += (text.empty() ? "" : "; ") + blocker;
    }
    return text.empty() ? ok() : Error(ErrorCode::conflict, "the machine cannot be saved: " + text);
}

} // namespace

/// The guest has been reclaimed: what the successor still says does not count.
void Service::stop_waiting_for_successor() {
    if (peer_) {
        ::shutdown(peer_->fd().raw(), SHUT_RDWR);
        job_.join();
        peer_.reset();
        job_done();
    }
}

void Service::start_snapshot(ControlServer::Request request) {
    const Status owner = check_owner();
    if (!owner.has_value()) {
        request.reply.error(owner.error());
        return;
    }
    if (!request.params.contains("directory") || !request.params["directory"].is_string()) {
        request.reply.error(
            Error(ErrorCode::invalid_argument, "the parameter \"directory\" must be a path"));
        return;
    }
    const std::string directory = request.params["directory"];
    const bool was_running = state_ == RunState::running;
    const Status savable = check_savable(*machine_);
    if (!savable.has_value()) {
        request.reply.error(savable.error());
        return;
    }
    start_job("snapshot", [this, directory, was_running, reply = request.reply] {
        Result<SnapshotReport> result = SnapshotReport{};
        consoles_->freeze();
        const Status paused = machine_->pause();
        if (!paused.has_value()) {
            result = paused.error();
        } else {
            result = write_snapshot(*machine_, directory, {}, cancel_.wanted());
        }
        const Status resumed = was_running ? machine_->start() : ok();
        consoles_->thaw();
        loop_->post([this, result, resumed, directory, reply] {
            if (!resumed.has_value()) {
                log::error("resume_after_snapshot_failed",
                           {{"reason", resumed.error().to_string()}});
                set_state(RunState::paused);
            }
            if (result.has_value()) {
                reply.result({{"operation", "snapshot"},
                              {"machine", options_.machine},
                              {"directory", directory},
                              {"ram_bytes", result->ram_bytes},
                              {"written_bytes", result->written_bytes},
                              {"state_bytes", result->state_bytes}});
            } else {
                reply.error(result.error());
            }
            job_done();
        });
    });
}

} // namespace godwit::vmm
