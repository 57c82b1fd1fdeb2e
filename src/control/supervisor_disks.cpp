/// Disks of running machines: where they lie, and moving them.

#include "base/log.h"
#include "control/disk_move_run.h"
#include "control/supervisor.h"
#include "sys/fd.h"

#include <nlohmann/json.hpp>

#include <filesystem>

namespace godwit::control {

namespace {

constexpr std::chrono::milliseconds disks_time_max{3'000};
constexpr std::size_t document_bytes_max = 64 * kib;

} // namespace

/// Its operation, not begun by anything yet.
std::pair<std::shared_ptr<DiskMoveRun>, std::uint64_t>
Supervisor::add_disk_move(const std::string& name, const std::string& disk) {
    auto run = std::make_shared<DiskMoveRun>(*this, name, disk);
    const std::uint64_t operation =
        parts_.operations.begin("disk-move", name, [weak = std::weak_ptr(run)]() -> Status {
            const auto moving = weak.lock();
            return moving == nullptr ? Error(ErrorCode::conflict, "the move is over")
                                     : moving->cancel();
        });
    disk_moves_.insert_or_assign({name, disk}, run);
    return {std::move(run), operation};
}

Result<std::uint64_t>
Supervisor::move_disk(const std::string& name, const std::string& disk, const Json& params) {
    const std::string destination = text_member(params, "destination");
    if (!std::filesystem::path(destination).is_absolute()) {
        return Error(ErrorCode::invalid_argument,
                     "request: /destination is '" + destination + "': must be an absolute path");
    }
    GODWIT_TRY(find_idle(name));
    if (disk_moves_.contains({name, disk})) {
        return Error(ErrorCode::conflict,
                     disk + " of '" + name +
                         "' is being moved already: wait for its end, or cancel it with 'godwit "
                         "disk cancel " +
                         name + ":" + disk + "'");
    }
    const auto [run, operation] = add_disk_move(name, disk);
    Json asked = params;
    asked["disk"] = disk;
    run->start(operation, asked);
    return operation;
}

Result<std::uint64_t> Supervisor::cancel_disk_move(const std::string& name,
                                                   const std::string& disk) {
    GODWIT_TRY(find_or_error(name));
    const auto found = disk_moves_.find({name, disk});
    if (found == disk_moves_.end()) {
        return Error(ErrorCode::not_found,
                     disk.substr(0, 40) + " of '" + name + "' is not being moved");
    }
    const std::uint64_t operation = found->second->operation();
    GODWIT_TRY(parts_.operations.cancel(operation));
    return operation;
}

void Supervisor::disks(const std::string& name, Reply<Json> reply) {
    const Result<MachineEntry*> found = find_or_error(name);
    if (!found.has_value() || (*found)->owner == nullptr) {
        reply(found.has_value()
                  ? Error(ErrorCode::conflict, "no VMM of machine '" + name + "' can be asked")
                  : found.error());
        return;
    }
    const std::shared_ptr<VmmInstance> owner = (*found)->owner;
    owner->call("disks",
                Json::object(),
                disks_time_max,
                Reply<Json>([this, name, reply = std::move(reply)](Result<Json> answer) mutable {
                    if (!answer.has_value() || !answer->is_object()) {
                        reply(std::move(answer));
                        return;
                    }
                    Json list = Json::array();
                    for (Json disk : answer->value("disks", Json::array())) {
                        const auto moving = disk_moves_.find({name, text_member(disk, "disk")});
                        disk["operation"] = moving == disk_moves_.end()
                                                ? Json()
                                                : Json(moving->second->operation());
                        list.push_back(std::move(disk));
                    }
                    reply(Json{{"disks", std::move(list)}});
                }));
}

/// Moves that another godwitd has begun, or somebody at the VMM's socket.
void Supervisor::find_disk_moves(VmmInstance& vmm) {
    const std::string name = vmm.machine();
    vmm.call("disks",
             Json::object(),
             disks_time_max,
             Reply<Json>([this, name](const Result<Json>& answer) {
                 if (!answer.has_value() || !answer->is_object() || find(name) == nullptr) {
                     return;
                 }
                 for (const Json& disk : answer->value("disks", Json::array())) {
                     const Json move = disk.is_object() ? disk.value("move", Json()) : Json();
                     const std::string which = text_member(move, "disk");
                     if (!which.empty() && !disk_moves_.contains({name, which})) {
                         const auto [run, operation] = add_disk_move(name, which);
                         run->follow(operation, move);
                     }
                 }
             }));
}

void Supervisor::disk_move_event(const VmmInstance& vmm, const Json& event) {
    const std::string disk = text_member(event, "disk");
    const std::string state = text_member(event, "state");
    parts_.events.append(
        "disk_move",
        vmm.machine(),
        {{"disk", disk}, {"state", state}, {"destination", text_member(event, "destination")}});
    const auto found = disk_moves_.find({vmm.machine(), disk});
    if (found != disk_moves_.end()) {
        const std::shared_ptr<DiskMoveRun> run = found->second;
        run->look();
    } else if (MachineEntry* const entry = find(vmm.machine());
               entry != nullptr && entry->owner.get() == &vmm && state == "started") {
        find_disk_moves(*entry->owner);
    }
}

void Supervisor::disk_moves_gone(const std::string& name) {
    for (const auto& [place, run] : std::map(disk_moves_)) {
        if (place.first == name) {
            run->owner_gone();
        }
    }
}

/// Where one moves without a complete source, the machine is not ended from outside.
Status Supervisor::check_disks_complete(const std::string& name) const {
    for (const auto& [place, run] : disk_moves_) {
        if (place.first == name && !run->safe()) {
            return Error(ErrorCode::conflict,
                         place.second + " of '" + name +
                             "' is moving by an unsafe scheme, and lies on two devices: cancel "
                             "that first with 'godwit disk cancel " +
                             name + ":" + place.second + "'");
        }
    }
    return ok();
}

void Supervisor::disk_move_ended(const std::string& machine, const Json& report) {
    history_.append(report);
    MachineEntry* const entry = find(machine);
    if (entry != nullptr) {
        entry->reports.push_back(json_text(report));
        if (entry->reports.size() > reports_per_machine_max) {
            entry->reports.pop_front();
        }
    }
    const Json pause = report.value("pause_us", Json());
    parts_.metrics.disk_move_ended(text_member(report, "scheme"),
                                   text_member(report, "outcome"),
                                   pause.is_number() ? pause.get<double>() / 1e6 : -1.0);
    if (entry == nullptr || text_member(report, "outcome") != "moved") {
        return;
    }
    const Result<std::string> text =
        sys::read_file(parts_.run.spec_file(machine), document_bytes_max);
    Result<MachineDocument> document =
        text.has_value() ? read_machine_document(*text) : Result<MachineDocument>(text.error());
    if (document.has_value()) {
        entry->document.json = std::move(document->json);
    } else {
        log::warn("machine_document_unreadable",
                  {{"machine", machine}, {"reason", document.error().to_string()}});
    }
}

} // namespace godwit::control
