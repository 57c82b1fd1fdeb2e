/// Moves of the machine's disks, and what they have in common with merges (disk_layers.cpp). They
/// do not take the job's place: the machine can be paused, stopped and asked meanwhile, but not
/// saved or handed over.

#include "base/log.h"
#include "vmm/service.h"

#include <algorithm>

namespace godwit::vmm {

namespace {

using nlohmann::json;

} // namespace

/// Whether something may be begun with a disk.
Status Service::check_disk_work() const {
    GODWIT_TRY(check_owner());
    if (confined_ || ending_ || reboot_pending_) {
        return Error(ErrorCode::busy, "the machine is being handed over, rebooted or ended");
    }
    return ok();
}

Result<json> Service::start_disk_move(const json& params, DiskMoveKind kind) {
    GODWIT_TRY(check_disk_work());
    block::DiskMoveRequest request = GODWIT_TRY(block::parse_disk_move_request(
        params.dump(-1, ' ', false, json::error_handler_t::replace)));
    request.estimate_only = kind == DiskMoveKind::estimate;
    GODWIT_TRY(document_.ensure(machine_->spec()));
    const std::uint64_t id = GODWIT_TRY(machine_->start_disk_move(request));
    control_->broadcast({{"event", "disk_move"},
                         {"disk", request.disk},
                         {"state", request.estimate_only ? "measuring" : "started"},
                         {"destination", request.destination}});
    return json{{"id", id}};
}

Status Service::cancel_disk_move(const json& params) {
    if (!machine_ || !params.contains("disk") || !params["disk"].is_string()) {
        return Error(ErrorCode::invalid_argument, "the parameter \"disk\" must be a text");
    }
    return machine_->cancel_disk_move(params["disk"].get<std::string>());
}

/// Of all disks without the reasons for a choice, so that it fits into a packet.
json Service::disks_json(const json& params) const {
    json all = machine_ ? json::parse(machine_->disks_json(), nullptr, false) : json::array();
    const json wanted = params.value("disk", json());
    json told = json::array();
    for (json& disk : all) {
        if (!wanted.is_null() && disk["disk"] != wanted) {
            continue;
        }
        for (const char* move : {"move", "last_move"}) { // Others tell no reasons.
            if (wanted.is_null() && disk[move].is_object()) {
                disk[move].erase("choice");
            }
        }
        told.push_back(std::move(disk));
    }
    return {{"disks", std::move(told)}};
}

bool Service::disks_move() const {
    return machine_ && !machine_->disks_moving().empty();
}

/// Every disk goes back to where it was, as soon as it can.
void Service::cancel_disk_moves() {
    for (const machine::Machine::DiskMoving& move : machine_->disks_moving()) {
        // One that is at its end already ends as well.
        discard(machine_->cancel_disk_move(move.disk), "it is over already");
    }
}

/// What ended moves, merges and freezes have changed; between jobs, which may be reading it.
void Service::take_over_disks() {
    if (role_ != Role::owner || !machine_) {
        return;
    }
    for (const machine::Machine::DiskSettled& settled : machine_->settle_disks()) {
        if (settled.work != machine::Machine::DiskWork::freeze) { // Tells by itself.
            const bool move = settled.work == machine::Machine::DiskWork::move;
            control_->broadcast({{"event", move ? "disk_move" : "disk_merge"},
                                 {"disk", settled.disk},
                                 {"state", "ended"}});
        }
    }
}

/// On the loop's thread, when a move has ended or got stuck.
void Service::settle_disks() {
    if (!machine_ || !job_name_.empty()) {
        return; // job_done() comes here.
    }
    take_over_disks();
    const auto moving = machine_->disks_moving();
    for (const machine::Machine::DiskMoving& move : moving) {
        if (move.stuck) {
            control_->broadcast(
                {{"event", "disk_move"}, {"disk", move.disk}, {"state", "stranded"}});
        }
    }
    if (ending_ && std::ranges::all_of(moving, &machine::Machine::DiskMoving::stuck)) {
        finish();
    } else if (moving.empty() && role_ == Role::owner && std::exchange(reboot_pending_, false)) {
        guest_stopped(machine::StopReason::rebooted, "while a disk was moving");
    }
}

} // namespace godwit::vmm
