#include "base/log.h"
#include "sys/thread.h"
#include "vmm/service.h"
#include "vmm/snapshot.h"

#include <poll.h>

namespace godwit::vmm {

namespace {

constexpr std::uint64_t deadline_ms_max = 600'000;

} // namespace

void Service::start_job(std::string name, std::move_only_function<void()> body) {
    if (job_.joinable()) {
        job_.join(); // The one before has posted its end; only its last instructions are left.
    }
    job_name_ = std::move(name);
    cancel_.store(false);
    job_ = sys::start_thread(job_name_, std::move(body));
}

namespace {

/// A closed peer shows as a hang-up even while unread messages remain.
bool peer_alive(const sys::MessageSocket& socket) {
    pollfd state{.fd = socket.fd().raw(), .events = POLLRDHUP, .revents = 0};
    return ::poll(&state, 1, 0) == 0 || (state.revents & (POLLHUP | POLLRDHUP | POLLERR)) == 0;
}

Result<handover::Limits> limits_from(const nlohmann::json& params) {
    handover::Limits limits;
    if (!params.contains("deadline_ms")) {
        return limits;
    }
    const nlohmann::json& deadline = params["deadline_ms"];
    if (!deadline.is_number_unsigned() || deadline.get<std::uint64_t>() == 0 ||
        deadline.get<std::uint64_t>() > deadline_ms_max) {
        return Error(ErrorCode::invalid_argument,
                     "the parameter \"deadline_ms\" must be between 1 and " +
                         std::to_string(deadline_ms_max));
    }
    limits.commit_timeout = std::chrono::milliseconds(deadline.get<std::uint64_t>());
    return limits;
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
    if (ram_is_private_) {
        request.reply.error(
            Error(ErrorCode::conflict,
                  "the machine was restored with its RAM as a private copy of the snapshot, which "
                  "cannot change hands: restore it with --copy-ram to be able to exchange it"));
        return;
    }
    auto successor = std::make_shared<sys::MessageSocket>(std::move(request.fds[0]));
    start_job("exchange", [this, successor, reply = request.reply, limits = *limits] {
        handover::Report report = exchange::run_source(
            {.machine = *machine_,
             .endpoints = *consoles_,
             .record = *record_,
             .self = options_.instance,
             .limits = limits,
             .clock = clock_,
             .cancel = cancel_,
             .progress =
                 [this](handover::Phase phase) {
                     loop_->post([this, phase] {
                         control_->broadcast(
                             {{"event", "exchange"}, {"phase", handover::name_of(phase)}});
                     });
                 }},
            *successor);
        const bool alive = peer_alive(*successor);
        loop_->post(
            [this, report = std::move(report), reply, alive] { exchanged(report, reply, alive); });
    });
}

void Service::exchanged(const handover::Report& report,
                        const ControlServer::Reply& reply,
                        bool successor_alive) {
    job_name_.clear();
    log::info("exchange_ended",
              {{"outcome", handover::name_of(report.outcome)},
               {"step", report.failed_step},
               {"reason", report.reason},
               {"blackout_us", report.blackout_us}});
    reply.result(nlohmann::json::parse(handover::to_json(report), nullptr, false));
    if (report.outcome == handover::Outcome::rolled_back) {
        return;
    }
    role_ = Role::retired;
    if (report.outcome == handover::Outcome::failed_after_commit && !successor_alive) {
        // Nobody runs the guest. RAM and state stay here, at rest, for whoever recovers them.
        set_state(RunState::frozen);
        consoles_->close();
        return;
    }
    end(0);
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
    start_job("snapshot", [this, directory, was_running, reply = request.reply] {
        Result<SnapshotReport> result = SnapshotReport{};
        const Status paused = machine_->pause();
        if (!paused.has_value()) {
            result = paused.error();
        } else {
            result = write_snapshot(*machine_, directory, {}, cancel_);
        }
        const Status resumed = was_running ? machine_->start() : ok();
        loop_->post([this, result, resumed, directory, reply] {
            job_name_.clear();
            if (!resumed.has_value()) {
                log::error("resume_after_snapshot_failed",
                           {{"reason", resumed.error().to_string()}});
                set_state(RunState::paused);
            }
            if (!result.has_value()) {
                reply.error(result.error());
                return;
            }
            reply.result({{"operation", "snapshot"},
                          {"machine", options_.machine},
                          {"directory", directory},
                          {"ram_bytes", result->ram_bytes},
                          {"written_bytes", result->written_bytes},
                          {"state_bytes", result->state_bytes}});
        });
    });
}

} // namespace godwit::vmm
