#include "base/fault_point.h"
#include "base/log.h"
#include "base/version.h"
#include "machine/resources.h"
#include "sys/process.h"
#include "vmm/plan.h"
#include "vmm/service.h"

#include <unistd.h>

#include <algorithm>
#include <array>

namespace godwit::vmm {

std::string_view name_of(Role role) noexcept {
    switch (role) {
    case Role::owner:
        return "owner";
    case Role::successor:
        return "successor";
    case Role::retired:
        return "retired";
    }
    return "unknown";
}

std::string_view name_of(RunState state) noexcept {
    switch (state) {
    case RunState::building:
        return "building";
    case RunState::running:
        return "running";
    case RunState::paused:
        return "paused";
    case RunState::stopped:
        return "stopped";
    case RunState::frozen:
        return "frozen";
    }
    return "unknown";
}

namespace {

bool bool_of(const nlohmann::json& params, const char* key) {
    return params.contains(key) && params[key].is_boolean() && params[key].get<bool>();
}

/// A parameter that must be there and be a text.
Result<std::string> text_of(const nlohmann::json& params, const char* key) {
    if (!params.contains(key) || !params[key].is_string()) {
        return Error(ErrorCode::invalid_argument,
                     std::string("the parameter \"") + key + "\" must be a text");
    }
    return params[key].get<std::string>();
}

Result<std::uint64_t> number_of(const nlohmann::json& params, const char* key) {
    if (!params.contains(key) || !params[key].is_number_unsigned()) {
        return Error(ErrorCode::invalid_argument,
                     std::string("the parameter \"") + key + "\" must be a number not below 0");
    }
    return params[key].get<std::uint64_t>();
}

void answer(const ControlServer::Reply& reply, const Status& status) {
    if (status.has_value()) {
        reply.result(nlohmann::json::object());
    } else {
        reply.error(status.error());
    }
}

} // namespace

Status Service::check_owner() const {
    if (role_ != Role::owner || !machine_) {
        return Error(ErrorCode::conflict, "this process does not own the machine");
    }
    if (!job_name_.empty()) {
        return Error(ErrorCode::busy,
                     "'" + job_name_ + "' is running: wait for its end or cancel it");
    }
    return ok();
}

nlohmann::json Service::status_json() const {
    const auto up = std::chrono::duration_cast<std::chrono::seconds>(clock_.now() - started_at_);
    return {
        {"name", options_.machine},
        {"id", machine_ ? machine_->spec().id : ""},
        {"role", name_of(role_)},
        {"state", name_of(state_)},
        {"job", job_name_},
        {"pid", sys::host_pid()},
        {"confined", confined_},
        {"reclaimable", is_reclaimable()},
        {"instance", handover::to_string(options_.instance)},
        {"build_id", build_id()},
        {"version", version()},
        {"epoch", record_ ? record_->read().epoch : 0},
        {"owner", record_ ? handover::to_string(record_->read().owner) : ""},
        {"uptime_s", up.count()},
    };
}

nlohmann::json Service::info_json() const {
    nlohmann::json info = status_json();
    if (machine_) {
        info["spec"] = nlohmann::json::parse(machine::to_json(machine_->spec()), nullptr, false);
        info["statistics"] = nlohmann::json::parse(machine_->statistics_json(), nullptr, false);
        info["consoles"] = consoles_->paths();
    }
    return info;
}

/// What speaks against an exchange now, all of it, and how it would carry the machine.
nlohmann::json Service::plan_json(const nlohmann::json& successor) {
    nlohmann::json plan = status_json();
    plan["cpu_us"] =
        std::chrono::duration_cast<std::chrono::microseconds>(sys::process_cpu_time()).count();
    plan["uptime_us"] = sys::microseconds_between(started_at_, clock_.now());
    plan["carriers"] = nlohmann::json::array();
    std::vector<std::string> blockers;
    const Status owner = check_owner();
    if (!owner.has_value()) {
        blockers.push_back(owner.error().to_string());
    } else {
        exchange::SourcePlan source = exchange::plan_source(*machine_, *consoles_);
        blockers = std::move(source.blockers);
        if (!successor.is_null()) {
            for (std::string& refusal :
                 refusals_of(successor, source.sections, machine_->cpuid())) {
                blockers.push_back(std::move(refusal));
            }
        }
        for (const handover::CarriedResource& carried : source.carriers) {
            plan["carriers"].push_back(
                {{"resource", carried.resource}, {"carrier", carried.carrier}});
        }
    }
    plan["blockers"] = blockers;
    return plan;
}

Status Service::pause_guest() {
    GODWIT_TRY(check_owner());
    GODWIT_TRY(machine_->pause().with_context("the guest cannot be paused and runs on"));
    set_state(RunState::paused);
    return ok();
}

Status Service::resume_guest() {
    GODWIT_TRY(check_owner());
    GODWIT_TRY(machine_->start());
    set_state(RunState::running);
    return ok();
}

Status Service::stop_guest(bool force) {
    if (force) {
        GODWIT_TRY(check_disks_complete());
        if (!job_name_.empty() && role_ == Role::owner) {
            return Error(ErrorCode::busy,
                         "'" + job_name_ + "' is running: wait for its end or cancel it");
        }
        control_->broadcast(
            {{"event", "stopped"}, {"reason", "killed"}, {"detail", "stopped by force"}});
        set_state(RunState::stopped);
        end(0);
        return ok();
    }
    GODWIT_TRY(check_owner());
    if (state_ != RunState::running) {
        return Error(
            ErrorCode::conflict,
            "the guest is paused and cannot obey its power button: resume it, or use --force");
    }
    return machine_->press_power_button();
}

/// Who ends a machine at once does not wait for what lies on two devices.
Status Service::check_disks_complete() const {
    if (role_ != Role::owner || !machine_) {
        return ok();
    }
    for (const machine::Machine::DiskMoving& move : machine_->disks_moving()) {
        if (!move.safe) {
            return Error(ErrorCode::conflict,
                         move.disk +
                             " is moving by an unsafe scheme, and lies on two devices: "
                             "cancel that first with 'godwit disk cancel " +
                             options_.machine + ":" + move.disk + "'");
        }
    }
    return ok();
}

void Service::give_record(const ControlServer::Reply& reply) const {
    if (!record_ && !record_ahead_) {
        reply.error(Error(ErrorCode::not_found, "this process has no owner record yet"));
        return;
    }
    Result<sys::Fd> fd = (record_ ? record_->fd() : record_ahead_->fd).duplicate();
    if (!fd.has_value()) {
        reply.error(fd.error());
        return;
    }
    std::vector<sys::Fd> passed;
    passed.push_back(std::move(*fd));
    reply.result({{"machine_id", record_ ? machine_->spec().id : record_ahead_->machine_id}},
                 std::move(passed));
}

/// Where RAM of kind "pool" lies, for a godwitd that has just been started and knows no pool.
void Service::give_pool(const ControlServer::Reply& reply) const {
    if (!machine_ || machine_->spec().memory.kind != memory::RamKind::pool) {
        reply.error(Error(ErrorCode::not_found, "the machine's RAM is in no memory pool"));
        return;
    }
    Result<machine::Resources> resources = machine_->duplicate_resources();
    if (!resources.has_value()) {
        reply.error(resources.error());
        return;
    }
    std::vector<sys::Fd> passed;
    for (const std::string_view name :
         {machine::ram_resource_name, machine::pool_table_resource_name}) {
        const auto found = std::ranges::find(*resources, name, &machine::Resource::name);
        if (found != resources->end()) {
            passed.push_back(std::move(found->fd));
        }
    }
    reply.result({{"machine_id", machine_->spec().id}}, std::move(passed));
}

/// The guest runs here again, if the successor that claimed it has not touched it. The swap on the
/// record decides; whoever loses it leaves the guest alone.
Status Service::reclaim() {
    if (role_ != Role::retired || state_ != RunState::frozen || !lost_to_ || ending_) {
        return Error(ErrorCode::conflict, "this process keeps no frozen guest");
    }
    fault_point("vmm.reclaim");
    // A keeper that gives up writes it back by itself.
    if (const handover::Ownership now = record_->read();
        now.owner != options_.instance || now.tenure != handover::Tenure::running) {
        GODWIT_TRY(record_->transfer(*lost_to_, options_.instance));
    }
    fault_point("vmm.reclaimed");
    log::warn("machine_reclaimed",
              {{"machine", options_.machine}, {"epoch", record_->read().epoch}});
    role_ = Role::owner;
    lost_to_.reset();
    stop_waiting_for_successor();
    Status started = ran_before_ ? machine_->start() : ok();
    set_state(ran_before_ && started.has_value() ? RunState::running : RunState::paused);
    consoles_->thaw_here();
    return std::move(started).with_context("the guest is here again, but does not run");
}

void Service::handle(ControlServer::Request request) {
    const ControlServer::Reply reply = request.reply;
    const std::string& method = request.method;
    if (method == "status") {
        reply.result(status_json());
    } else if (method == "info") {
        reply.result(info_json());
    } else if (method == "plan") {
        reply.result(plan_json(request.params.value("successor", nlohmann::json())));
    } else if (method == "subscribe") {
        control_->subscribe(reply.connection());
        reply.result(nlohmann::json::object());
    } else if (method == "pause") {
        answer(reply, pause_guest());
    } else if (method == "resume") {
        answer(reply, resume_guest());
    } else if (method == "stop") {
        answer(reply, stop_guest(bool_of(request.params, "force")));
    } else if (method == "owner_record") {
        give_record(reply);
    } else if (method == "pool") {
        give_pool(reply);
    } else if (method == "reclaim") {
        answer(reply, reclaim());
    } else if (method == "pagemap") {
        answer(reply, take_page_map(std::move(request.fds)));
    } else if (method == "leave_partition") {
        answer(reply, leave_partition(request));
    } else if (method == "exchange") {
        start_exchange(std::move(request));
    } else if (method == "snapshot") {
        start_snapshot(std::move(request));
    } else if (method == "cancel") {
        if (job_name_ == "exchange" || job_name_ == "snapshot") {
            cancel_.request();
            reply.result({{"job", job_name_}});
        } else {
            reply.error(Error(ErrorCode::conflict, "nothing that could be cancelled is running"));
        }
    } else if (method == "refresh_disk") {
        const auto disk = text_of(request.params, "disk");
        const Status owner = check_owner();
        answer(reply,
               !owner.has_value()  ? owner
               : !disk.has_value() ? Status(disk.error())
                                   : machine_->refresh_disk(*disk));
    } else if (method == "disk_move" || method == "disk_estimate") {
        const auto started = start_disk_move(
            request.params, method == "disk_move" ? DiskMoveKind::move : DiskMoveKind::estimate);
        started.has_value() ? reply.result(*started) : reply.error(started.error());
    } else if (method == "disk_snapshot") {
        freeze_disk(request);
    } else if (method == "disk_merge") {
        const auto started = start_disk_merge(request.params);
        started.has_value() ? reply.result(*started) : reply.error(started.error());
    } else if (method == "cancel_disk_move") {
        answer(reply, cancel_disk_move(request.params));
    } else if (method == "disks") {
        reply.result(disks_json(request.params));
    } else if (method == "set_balloon") {
        const auto bytes = number_of(request.params, "bytes");
        const Status owner = check_owner();
        answer(reply,
               !owner.has_value()   ? owner
               : !bytes.has_value() ? Status(bytes.error())
                                    : machine_->set_balloon(*bytes));
    } else {
        reply.error(Error(ErrorCode::not_found, "there is no method '" + method + "'"));
    }
}

} // namespace godwit::vmm
