/// What is asked of a keeper over its control socket (docs/formats/keeper.md).

#include "base/log.h"
#include "base/version.h"
#include "keeper/keeper.h"

#include <sys/epoll.h>

#include <nlohmann/json.hpp>
#include <unistd.h>

namespace godwit::keeper {

namespace {

/// How long the old VMM may take to end after the commit. It cannot run the guest any more.
constexpr std::chrono::milliseconds leave_time_max{5'000};

void answer(const sys::ControlServer::Reply& reply, const Status& status) {
    if (status.has_value()) {
        reply.result(nlohmann::json::object());
    } else {
        reply.error(status.error());
    }
}

Status one_descriptor(const std::vector<sys::Fd>& fds) {
    return fds.size() == 1
               ? ok()
               : Status(Error(ErrorCode::invalid_argument, "this comes with one descriptor"));
}

Error wrong_step(std::string_view method, std::string_view step) {
    return Error(ErrorCode::conflict,
                 "'" + std::string(method) + "' is not to be had in step '" + std::string(step) +
                     "'");
}

} // namespace

std::string_view Keeper::step_name() const noexcept {
    constexpr std::string_view names[] = {"waiting",
                                          "greeting",
                                          "offering",
                                          "building",
                                          "ready",
                                          "holding",
                                          "sharing",
                                          "held",
                                          "kept",
                                          "resuming",
                                          "settling",
                                          "over"};
    return names[static_cast<std::size_t>(step_)];
}

bool Keeper::owns() const {
    return parcel_.has_value() && parcel_->record().read().owner == options_.instance;
}

void Keeper::announce() {
    control_->broadcast({{"event", "state"}, {"state", step_name()}});
}

/// The new VMM's end of the conversation.
Status Keeper::attach(std::vector<sys::Fd> fds) {
    GODWIT_TRY(one_descriptor(fds));
    if (step_ != Step::waiting || options_.part == Part::guard || !source_.alive()) {
        return wrong_step("attach", step_name());
    }
    reach(Step::greeting, 1);
    return connect(successor_, std::move(fds[0]), &Keeper::from_successor);
}

/// A pipe whose other end godwitd holds: when that is gone, godwitd is.
Status Keeper::drive(std::vector<sys::Fd> fds) {
    GODWIT_TRY(one_descriptor(fds));
    if (lifeline_.valid()) {
        return wrong_step("drive", step_name());
    }
    lifeline_ = std::move(fds[0]);
    lifeline_watch_ = GODWIT_TRY(loop_->watch(lifeline_, EPOLLIN, [this](std::uint32_t) {
        lifeline_watch_.reset();
        driver_gone_ = true;
        if (step_ < Step::kept) {
            give_back(Error(ErrorCode::peer_closed, "godwitd is gone"));
            return;
        }
        resume_wanted_ = !source_.alive();
        try_resume();
        if (source_.alive()) {
            auto timer = loop_->schedule(leave_time_max, {}, [this] {
                resume_wanted_ = true;
                try_resume();
            });
            if (timer.has_value()) {
                timer_ = std::move(*timer);
            }
        }
    }));
    return ok();
}

Status Keeper::hold() {
    if (step_ != Step::ready) {
        return wrong_step("hold", step_name());
    }
    reach(Step::holding, 5);
    return exchange::send(*source_.socket, exchange::Prepared{});
}

Status Keeper::commit() {
    if (step_ != Step::held) {
        return wrong_step("commit", step_name());
    }
    pass(8);
    const handover::Ownership claimed = parcel_->record().read();
    if (claimed.owner != options_.instance) {
        return Error(ErrorCode::conflict, "the machine has been taken back");
    }
    const handover::Ownership mine = GODWIT_TRY(parcel_->record().confirm(claimed));
    confirmed(mine);
    return ok();
}

/// A recovery takes the machine from a new VMM that has claimed it and not run it.
Status Keeper::reclaim() {
    if (step_ != Step::kept || !parcel_->complete()) {
        return wrong_step("reclaim", step_name());
    }
    const handover::Ownership now = parcel_->record().read();
    if (now.tenure != handover::Tenure::claimed) {
        return owns() ? ok()
                      : Status(Error(ErrorCode::conflict,
                                     "the machine's owner may have run the guest"));
    }
    GODWIT_TRY(parcel_->record().transfer(now, options_.instance));
    timer_.reset();
    announce();
    return ok();
}

void Keeper::start_exchange(sys::ControlServer::Request request) {
    Status able = one_descriptor(request.fds);
    if (able.has_value() && (step_ != Step::kept || successor_.alive() || !owns())) {
        able = Error(ErrorCode::conflict,
                     "the machine is not kept here without a new VMM (step '" +
                         std::string(step_name()) + "')");
    }
    if (able.has_value()) {
        report_ = {.machine = options_.machine,
                   .source_build_id = std::string(build_id()),
                   .before = parcel_->record().read()};
        resume_wanted_ = true;
        successor_stands_ = false;
        able = connect(successor_, std::move(request.fds[0]), &Keeper::from_successor);
    }
    if (!able.has_value()) {
        request.reply.error(able.error()); // One that is under way is still answered.
        return;
    }
    asked_ = request.reply;
}

/// The machine is given up: its memory goes when nobody else holds it.
void Keeper::stop(const sys::ControlServer::Reply& reply) {
    if (step_ != Step::kept) {
        reply.error(wrong_step("stop", step_name()));
        return;
    }
    log::warn("kept_machine_given_up", {{"machine", options_.machine}});
    control_->broadcast(
        {{"event", "stopped"}, {"reason", "killed"}, {"detail", "stopped by force"}});
    if (guard_.alive()) {
        discard(exchange::send(*guard_.socket, exchange::Abort{.reason = "given up"}),
                "it may be gone");
    }
    reply.result(nlohmann::json::object());
    end(0);
}

void Keeper::give_record(const sys::ControlServer::Reply& reply) const {
    if (!parcel_.has_value()) {
        reply.error(Error(ErrorCode::not_found, "this process has no owner record yet"));
        return;
    }
    Result<sys::Fd> fd = parcel_->record().fd().duplicate();
    if (!fd.has_value()) {
        reply.error(fd.error());
        return;
    }
    std::vector<sys::Fd> passed;
    passed.push_back(std::move(*fd));
    reply.result({{"machine_id", parcel_->machine_id()}}, std::move(passed));
}

namespace {

/// As a VMM says it, so that godwitd can treat both alike.
nlohmann::json status_of(const Options& options,
                         const std::optional<Parcel>& parcel,
                         std::string_view step,
                         std::string_view state) {
    const handover::Ownership now =
        parcel.has_value() ? parcel->record().read() : handover::Ownership{};
    return {{"name", options.machine},
            {"id", parcel.has_value() ? parcel->machine_id() : ""},
            {"role", options.part == Part::guard ? "guard" : "keeper"},
            {"state", state},
            {"step", step},
            {"job", ""},
            {"pid", ::getpid()},
            {"instance", handover::to_string(options.instance)},
            {"build_id", build_id()},
            {"version", version()},
            {"epoch", now.epoch},
            {"owner", handover::to_string(now.owner)},
            {"descriptors", parcel.has_value() ? parcel->descriptors() : 0},
            {"state_bytes", parcel.has_value() ? parcel->state_bytes() : 0}};
}

} // namespace

void Keeper::handle(sys::ControlServer::Request request) {
    const sys::ControlServer::Reply reply = request.reply;
    const std::string& method = request.method;
    if (method == "status" || method == "info") {
        const bool frozen = step_ >= Step::kept && step_ < Step::over;
        nlohmann::json status =
            status_of(options_, parcel_, step_name(), frozen ? "frozen" : "building");
        status["uptime_s"] =
            std::chrono::duration_cast<std::chrono::seconds>(clock_.now() - started_at_).count();
        reply.result(status);
    } else if (method == "subscribe") {
        control_->subscribe(reply.connection());
        reply.result(nlohmann::json::object());
    } else if (method == "owner_record") {
        give_record(reply);
    } else if (method == "drive") {
        answer(reply, drive(std::move(request.fds)));
    } else if (method == "attach") {
        answer(reply, attach(std::move(request.fds)));
    } else if (method == "hold") {
        answer(reply, hold());
    } else if (method == "commit") {
        answer(reply, commit());
    } else if (method == "abort") {
        const bool early = step_ < Step::kept;
        answer(reply, early ? ok() : Status(wrong_step("abort", step_name())));
        if (early) {
            give_back(Error(ErrorCode::cancelled, "the exchange of this host was given up"));
        }
    } else if (method == "reclaim") {
        answer(reply, reclaim());
    } else if (method == "exchange") {
        start_exchange(std::move(request));
    } else if (method == "cancel") {
        if (asked_.has_value() && step_ == Step::kept) {
            reply.result({{"job", "exchange"}});
            successor_failed(Error(ErrorCode::cancelled, "cancelled on request"));
        } else {
            reply.error(Error(ErrorCode::conflict, "nothing that could be cancelled is running"));
        }
    } else if (method == "stop") {
        stop(reply);
    } else {
        reply.error(Error(ErrorCode::not_found,
                          "a suspended machine does not do '" + method +
                              "': 'godwit recover' lets it run again"));
    }
}

void Keeper::tell_ready(const Status& status) {
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

} // namespace godwit::keeper
