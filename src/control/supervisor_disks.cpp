/// Disks of running machines: where they lie, moving, freezing and merging them.

#include "base/log.h"
#include "control/disk_move_all.h"
#include "control/disk_move_run.h"
#include "control/supervisor.h"
#include "sys/fd.h"

#include <nlohmann/json.hpp>

#include <filesystem>

namespace godwit::control {

namespace {

constexpr std::chrono::milliseconds disks_time_max{3'000};
/// For making the delta and bringing the disk to rest: its device may have to write first.
constexpr std::chrono::milliseconds snapshot_time_max{60'000};
constexpr std::size_t document_bytes_max = 64 * kib;

} // namespace

/// Its operation, not begun by anything yet.
std::pair<std::shared_ptr<DiskMoveRun>, std::uint64_t> Supervisor::add_disk_work(
    const std::string& name, const std::string& disk, const DiskWork& work, Reply<Json> end) {
    auto run = std::make_shared<DiskMoveRun>(*this, name, disk, work, std::move(end));
    const std::uint64_t operation =
        parts_.operations.begin(work.operation, name, [weak = std::weak_ptr(run)]() -> Status {
            const auto going = weak.lock();
            return going == nullptr ? Error(ErrorCode::conflict, "it is over") : going->cancel();
        });
    disk_moves_.insert_or_assign({name, disk}, run);
    return {std::move(run), operation};
}

Status Supervisor::check_disk_idle(const std::string& name, const std::string& disk) const {
    GODWIT_TRY(find_idle(name));
    if (const auto found = disk_moves_.find({name, disk}); found != disk_moves_.end()) {
        const bool merges = &found->second->work() == &disk_merge_work;
        return Error(ErrorCode::conflict,
                     disk + " of '" + name + "' is being " + (merges ? "merged" : "moved") +
                         " already: wait for its end, or cancel it with 'godwit disk cancel " +
                         name + ":" + disk + "'");
    }
    return ok();
}

Result<std::uint64_t> Supervisor::begin_disk_work(const std::string& name,
                                                  const std::string& disk,
                                                  const Json& params,
                                                  const DiskWork& work,
                                                  Reply<Json> end) {
    if (Status idle = check_disk_idle(name, disk); !idle.has_value()) {
        end(idle.error());
        return std::move(idle.error());
    }
    const auto [run, operation] = add_disk_work(name, disk, work, std::move(end));
    Json asked = params;
    asked["disk"] = disk;
    run->start(operation, asked);
    return operation;
}

Result<std::uint64_t>
Supervisor::move_disk(const std::string& name, const std::string& disk, const Json& params) {
    const std::string destination = text_member(params, "destination");
    if (!std::filesystem::path(destination).is_absolute()) {
        return Error(ErrorCode::invalid_argument,
                     "request: /destination is '" + destination + "': must be an absolute path");
    }
    return begin_disk_work(name, disk, params, disk_move_work, Reply<Json>());
}

Result<std::uint64_t> Supervisor::move_disks(DiskMoveAllRequest request) {
    if (!request.machine.empty()) {
        GODWIT_TRY(find_or_error(request.machine));
    }
    if (disk_move_all_ != nullptr) {
        return Error(ErrorCode::conflict,
                     "many disks are being moved already: wait for the end of that, or cancel it");
    }
    DiskPool pool = GODWIT_TRY(DiskPool::open(request.directories));
    const auto run = std::make_shared<DiskMoveAll>(*this, std::move(request), std::move(pool));
    const std::uint64_t operation =
        parts_.operations.begin("disk-move-all", "", [weak = std::weak_ptr(run)]() -> Status {
            const auto going = weak.lock();
            return going == nullptr ? Error(ErrorCode::conflict, "it is over") : going->cancel();
        });
    disk_move_all_ = run;
    run->start(operation);
    return operation;
}

Result<std::uint64_t> Supervisor::merge_disk(const std::string& name, const std::string& disk) {
    return begin_disk_work(name, disk, Json::object(), disk_merge_work, Reply<Json>());
}

void Supervisor::snapshot_disk(const std::string& name,
                               const std::string& disk,
                               const Json& params,
                               Reply<Json> reply) {
    const std::string delta = text_member(params, "delta");
    const Status good = std::filesystem::path(delta).is_absolute()
                            ? ok()
                            : Error(ErrorCode::invalid_argument,
                                    "request: /delta is '" + delta + "': must be an absolute path");
    const auto entry = good.has_value() ? find_idle(name) : Result<MachineEntry*>(good.error());
    if (!entry.has_value()) {
        reply(entry.error());
        return;
    }
    Json asked = params;
    asked["disk"] = disk;
    (*entry)->owner->call(
        "disk_snapshot",
        asked,
        snapshot_time_max,
        Reply<Json>([this, name, reply = std::move(reply)](Result<Json> answer) mutable {
            if (answer.has_value()) {
                reread_document(name);
                (*answer)["machine"] = name;
            }
            reply(std::move(answer));
        }));
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

/// Moves and merges that another godwitd has begun, or somebody at the VMM's socket.
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
                     for (const DiskWork* work : {&disk_move_work, &disk_merge_work}) {
                         const Json going =
                             disk.is_object() ? disk.value(work->member, Json()) : Json();
                         const std::string which = text_member(going, "disk");
                         if (!which.empty() && !disk_moves_.contains({name, which})) {
                             const bool estimate = going.value("estimate", Json()) == true;
                             const auto [run, operation] = add_disk_work(
                                 name, which, estimate ? disk_estimate_work : *work, Reply<Json>());
                             run->follow(operation, going);
                         }
                     }
                 }
             }));
}

void Supervisor::disk_move_event(const VmmInstance& vmm, const Json& event) {
    const std::string disk = text_member(event, "disk");
    const std::string state = text_member(event, "state");
    Json told{{"disk", disk}, {"state", state}};
    if (text_member(event, "event") == "disk_move") {
        told["destination"] = text_member(event, "destination");
    }
    parts_.events.append(text_member(event, "event"), vmm.machine(), std::move(told));
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

void Supervisor::disk_work_ended(const std::string& machine, const Json& report) {
    history_.append(report);
    MachineEntry* const entry = find(machine);
    if (entry != nullptr) {
        entry->reports.push_back(json_text(report));
        if (entry->reports.size() > reports_per_machine_max) {
            entry->reports.pop_front();
        }
    }
    if (text_member(report, "operation") == disk_move_work.operation) {
        const Json pause = report.value("pause_us", Json());
        parts_.metrics.disk_move_ended(text_member(report, "scheme"),
                                       text_member(report, "outcome"),
                                       pause.is_number() ? pause.get<double>() / 1e6 : -1.0);
    }
    reread_document(machine);
}

/// Its VMM may have rewritten it.
void Supervisor::reread_document(const std::string& machine) {
    MachineEntry* const entry = find(machine);
    if (entry == nullptr) {
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
