#include "control/supervisor.h"

#include "base/fault_point.h"
#include "base/log.h"
#include "control/blackout_history.h"
#include "control/disk_move_run.h"
#include "control/exchange_all.h"
#include "control/exchange_run.h"
#include "control/plan_run.h"
#include "control/program_path.h"
#include "control/recover_run.h"
#include "control/suspend_run.h"
#include "control/suspension.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace godwit::control {

namespace {

using std::chrono::milliseconds;
constexpr milliseconds owner_search_time_max{6'000};

} // namespace

std::string MachineEntry::state() const {
    if (starting) {
        return "starting";
    }
    if (owner == nullptr) {
        return doubt.empty() ? "recovering" : "unresponsive";
    }
    // One that has told its end closes its connection on the way.
    const bool silent = !owner->trouble().empty() && !end.has_value();
    if (silent || !owner->status().has_value()) {
        return "unresponsive";
    }
    const std::string& said = owner->status()->state;
    return said == "paused" || said == "frozen" ? said : "running";
}

bool MachineEntry::knows(const std::string& instance) const {
    const auto is_it = [&](const auto& vmm) { return vmm->id() == instance; };
    return (owner != nullptr && is_it(owner)) || std::ranges::any_of(others, is_it);
}

std::shared_ptr<VmmInstance> MachineEntry::living(handover::InstanceId instance) const {
    if (owner != nullptr && owner->alive() && owner->instance() == instance) {
        return owner;
    }
    const auto found = std::ranges::find_if(
        others, [&](const auto& vmm) { return vmm->alive() && vmm->instance() == instance; });
    return found == others.end() ? nullptr : *found;
}

bool MachineEntry::stands_for(const VmmInstance& vmm) const {
    if (!vmm.alive()) {
        return false;
    }
    const bool frozen = vmm.status().has_value() && vmm.status()->state == "frozen";
    if (record == nullptr) {
        return frozen || (vmm.status().has_value() && vmm.status()->role == "owner");
    }
    const handover::Ownership now = record->read();
    const bool claimed = now.tenure == handover::Tenure::claimed;
    if (now.owner == vmm.instance()) {
        return !claimed;
    }
    return frozen && (claimed || (living(now.owner) == nullptr && doubt.empty()));
}

Supervisor::Supervisor(SupervisorParts parts)
    : parts_(std::move(parts)), history_(parts_.run.history_file()), pool_(parts_.pool_bytes) {}

Supervisor::~Supervisor() = default;

void Supervisor::let_go() {
    settle_timer_.reset();
    doubt_timer_.reset();
    settled_.dismiss();
    const auto waiters = std::exchange(suspension_waiters_, {});
    suspension_.reset();
    suspend_.reset();
    // Out of sight first: what is answered while they go must not find half of them.
    const auto all = std::exchange(all_, {});
    const auto plans = std::exchange(plans_, {});
    const auto exchanges = std::exchange(exchanges_, {});
    const auto recoveries = std::exchange(recoveries_, {});
    const auto disk_moves = std::exchange(disk_moves_, {});
    const auto machines = std::exchange(machines_, {});
    // Gone before its moves, which go on: it must not count them as ended.
    const auto disk_move_all = std::exchange(disk_move_all_, {});
}

MachineEntry* Supervisor::find(const std::string& name) const {
    const auto found = machines_.find(name);
    return found == machines_.end() ? nullptr : found->second.get();
}

Result<MachineEntry*> Supervisor::find_or_error(const std::string& name) const {
    MachineEntry* const entry = find(name);
    if (entry == nullptr) {
        return Error(ErrorCode::not_found, "there is no machine '" + name.substr(0, 80) + "'");
    }
    return entry;
}

Result<MachineEntry*> Supervisor::find_idle(const std::string& name) const {
    MachineEntry* const entry = GODWIT_TRY(find_or_error(name));
    if (parts_.operations.running(entry->operation)) {
        return Error(ErrorCode::conflict,
                     "machine '" + name +
                         "' is busy: " + parts_.operations.kind_of(entry->operation) +
                         " under way (operation " + std::to_string(entry->operation) + ")");
    }
    if (entry->owner == nullptr || !entry->owner->connected()) {
        return Error(
            ErrorCode::conflict,
            "the VMM of machine '" + name + "' cannot be reached" +
                (entry->owner == nullptr ? std::string() : ": " + entry->owner->trouble()));
    }
    return entry;
}

Json Supervisor::summary(const MachineEntry& entry) const {
    Json body{{"name", entry.document.name},
              {"id", entry.document.id},
              {"state", entry.state()},
              {"vcpus", entry.document.vcpus},
              {"memory_bytes", entry.document.memory_bytes},
              {"operation", nullptr},
              {"vmm", nullptr}};
    if (parts_.operations.running(entry.operation)) {
        body["operation"] = entry.operation;
    }
    if (entry.owner != nullptr) {
        const VmmInstance& vmm = *entry.owner;
        const VmmStatus status = vmm.status().value_or(VmmStatus{});
        body["vmm"] = {{"pid", vmm.pid()},
                       {"instance", vmm.id()},
                       {"build_id", status.build_id},
                       {"version", status.version},
                       {"epoch", status.epoch},
                       {"uptime_s", status.uptime_seconds}};
        if (!vmm.trouble().empty()) {
            body["trouble"] = vmm.trouble();
        }
    } else if (!entry.doubt.empty()) {
        body["trouble"] = entry.doubt;
    }
    return body;
}

Json Supervisor::list() const {
    Json machines = Json::array();
    for (const auto& [name, entry] : machines_) {
        machines.push_back(summary(*entry));
    }
    return machines;
}

std::map<std::string, std::uint64_t> Supervisor::count_by_state() const {
    std::map<std::string, std::uint64_t> counts;
    for (const auto& [name, entry] : machines_) {
        ++counts[entry->state()];
    }
    return counts;
}

void Supervisor::announce_state(MachineEntry& entry) {
    std::string& announced = announced_states_[entry.document.name];
    const std::string state = entry.state();
    if (announced != state) {
        announced = state;
        parts_.events.append("state", entry.document.name, {{"state", state}});
    }
}

void Supervisor::vmm_changed(VmmInstance& vmm) {
    MachineEntry* const entry = find(vmm.machine());
    if (entry == nullptr) {
        return;
    }
    if (entry->record == nullptr) {
        entry->record = vmm.record();
    }
    find_pool(*entry, vmm);
    // An exchange under way says itself when the machine has changed its owner.
    const bool free = entry->owner == nullptr || !exchanges_.contains(vmm.machine());
    if (free && entry->owner.get() != &vmm && entry->stands_for(vmm)) {
        promote(*entry, vmm);
    }
    if (const auto found = recoveries_.find(vmm.machine()); found != recoveries_.end()) {
        const std::shared_ptr<RecoverRun> recovery = found->second;
        recovery->changed();
    }
    if (const auto found = exchanges_.find(vmm.machine()); found != exchanges_.end()) {
        const std::shared_ptr<ExchangeRun> exchange = found->second;
        exchange->instance_changed(vmm);
    }
    // An owner that still waits in its partition: its exchange ended without us.
    if (entry->owner.get() == &vmm && !exchanges_.contains(vmm.machine())) {
        vmm.let_out(Reply<void>());
    }
    if (entry->owner.get() == &vmm && vmm.connected() &&
        std::exchange(entry->disks_asked_of, vmm.id()) != vmm.id()) {
        find_disk_moves(vmm);
    }
    announce_state(*entry);
    if (suspension_ != nullptr) {
        suspension_->look();
    }
    check_settled();
}

void Supervisor::vmm_refused(VmmInstance& vmm, const std::string& what) {
    parts_.events.append(
        "partition_refused", vmm.machine(), {{"instance", vmm.id()}, {"what", what}});
}

void Supervisor::vmm_event(VmmInstance& vmm, const Json& event) {
    MachineEntry* const entry = find(vmm.machine());
    if (entry == nullptr) {
        return;
    }
    const std::string type = text_member(event, "event");
    if (type == "stopped") {
        if (!entry->end.has_value()) {
            entry->end = MachineEnd{.reason = text_member(event, "reason", "internal_error"),
                                    .detail = text_member(event, "detail")};
        }
    } else if (type == "state") {
        if (const std::shared_ptr<SuspendRun> run = suspend_) {
            run->keeper_reached(vmm, text_member(event, "state"));
        }
        vmm.refresh_status(Reply<void>());
    } else if (type == "exchange") {
        const std::string phase = text_member(event, "phase");
        const auto found = exchanges_.find(vmm.machine());
        if (found != exchanges_.end()) {
            found->second->phase_reached(vmm, phase);
        }
        if (all_ != nullptr) {
            all_->phase_reached(vmm.machine(), phase);
        }
        parts_.events.append("exchange", vmm.machine(), {{"phase", phase}});
    } else if (type == "disk_move" || type == "disk_merge") {
        disk_move_event(vmm, event);
    } else if (type == "disk_snapshot") {
        parts_.events.append(type,
                             vmm.machine(),
                             {{"disk", text_member(event, "disk")},
                              {"delta", text_member(event, "delta")},
                              {"snapshot", text_member(event, "snapshot")}});
    } else if (type == "disk_pressure") {
        parts_.events.append(type,
                             vmm.machine(),
                             {{"disk", text_member(event, "disk")},
                              {"delta", text_member(event, "delta")},
                              {"pressure", text_member(event, "pressure")}});
    } else if (type == "rebooted") {
        parts_.events.append("rebooted", vmm.machine(), Json::object());
    } else if (type == "disk_error") {
        parts_.events.append(
            "disk_error",
            vmm.machine(),
            {{"disk", text_member(event, "disk")}, {"message", text_member(event, "message")}});
    } else {
        log::debug("vmm_event_unknown", {{"machine", vmm.machine()}, {"type", type}});
    }
}

void Supervisor::vmm_ended(VmmInstance& vmm, const sys::ExitStatus& exit) {
    release_ended();
    MachineEntry* const entry = find(vmm.machine());
    if (entry == nullptr) {
        return;
    }
    const std::shared_ptr<VmmInstance> keep = vmm.shared_from_this();
    std::erase(entry->others, keep);
    const bool was_owner = entry->owner == keep;
    if (was_owner) {
        disk_moves_gone(vmm.machine());
        entry->owner.reset();
    }
    if (const auto found = exchanges_.find(vmm.machine()); found != exchanges_.end()) {
        const std::shared_ptr<ExchangeRun> exchange = found->second;
        exchange->instance_ended(vmm);
    }
    if (const auto found = recoveries_.find(vmm.machine()); found != recoveries_.end()) {
        const std::shared_ptr<RecoverRun> recovery = found->second;
        recovery->changed();
    }
    if (const std::shared_ptr<SuspendRun> run = suspend_) {
        run->instance_ended(vmm);
    }
    if (entry->starting) {
        return; // The answer to "ready" decides.
    }
    if (was_owner || (entry->owner == nullptr && entry->others.empty())) {
        owner_gone(*entry, exit);
    }
    if (suspension_ != nullptr) {
        suspension_->look();
    }
    check_settled();
}

void Supervisor::owner_gone(MachineEntry& entry, const sys::ExitStatus& exit) {
    MachineEnd end;
    if (entry.end.has_value()) {
        end = *entry.end;
    } else if (exit.signalled) {
        end = {.reason = "killed", .detail = "the VMM was " + exit.to_string()};
    } else if (entry.adopted) {
        end = {.reason = "killed", .detail = "the VMM ended without saying why"};
    } else if (exit.code == 0) {
        end = {.reason = "powered_off", .detail = ""};
    } else {
        end = {.reason = "internal_error", .detail = "the VMM ended with " + exit.to_string()};
    }
    look_for_owner(entry, std::move(end));
}

void Supervisor::look_for_owner(MachineEntry& entry, MachineEnd otherwise) {
    const std::string name = entry.document.name;
    if (entry.owner != nullptr) {
        return;
    }
    if (entry.others.empty()) {
        adopt_instances(entry);
    }
    if (entry.others.empty() && entry.doubt.empty()) {
        forget(name, otherwise);
        return;
    }
    // Kept for the case that the others end too: they know nothing of the guest's end.
    entry.end = std::move(otherwise);
    // vmm_changed() promotes the one that says it owns the guest.
    const auto candidates = entry.others;
    for (const auto& vmm : candidates) {
        vmm->refresh_status(Reply<void>());
    }
    Result<sys::EventLoop::Handle> timer =
        parts_.loop.schedule(owner_search_time_max, {}, [this, name] {
            const MachineEntry* const again = find(name);
            if (again != nullptr && again->owner == nullptr) {
                end_without_owner(*again);
            }
        });
    if (timer.has_value()) {
        entry.recovery_timer = std::move(*timer);
    }
}

/// Ends what is left of a machine whose owner is dead, if the record proves that nobody of it can
/// own the machine, now or later.
void Supervisor::end_without_owner(const MachineEntry& entry) {
    if (entry.record == nullptr) {
        log::warn("owner_unknown", {{"machine", entry.document.name}});
        return;
    }
    const handover::Ownership now = entry.record->read();
    fault_point("control.end_without_owner");
    // From here a claim on what the dead owner has offered fails.
    if (now.tenure == handover::Tenure::claimed || entry.living(now.owner) != nullptr ||
        !entry.doubt.empty() || !entry.record->transfer(now, now.owner).has_value()) {
        log::warn("owner_is_silent",
                  {{"machine", entry.document.name}, {"owner", to_string(now.owner)}});
        return;
    }
    const auto left = entry.others;
    for (const auto& vmm : left) {
        vmm->kill("its machine has no owner any more");
    }
}

void Supervisor::promote(MachineEntry& entry, VmmInstance& vmm) {
    const std::shared_ptr<VmmInstance> keep = vmm.shared_from_this();
    std::erase(entry.others, keep);
    if (entry.owner != nullptr && entry.owner->alive()) {
        entry.others.push_back(entry.owner);
    }
    entry.owner = keep;
    if (std::string program = vmm_program_of(vmm.pid()); entry.adopted && !program.empty()) {
        entry.program = std::move(program);
    }
    entry.end.reset();
    entry.recovery_timer.reset();
    log::info("machine_has_owner",
              {{"machine", entry.document.name},
               {"instance", vmm.id()},
               {"epoch", vmm.status().value_or(VmmStatus{}).epoch}});
}

void Supervisor::forget(const std::string& name, const MachineEnd& end) {
    const auto found = machines_.find(name);
    if (found == machines_.end()) {
        return;
    }
    log::info("machine_ended", {{"machine", name}, {"reason", end.reason}, {"detail", end.detail}});
    const std::vector<std::uint64_t> stops = found->second->stop_operations;
    if (found->second->document.in_pool || !found->second->document_known) {
        auto users = found->second->others;
        if (found->second->owner != nullptr) {
            users.push_back(found->second->owner);
        }
        release_memory(name, std::move(users));
    }
    // Instances may be in the middle of a callback: they go when the loop comes round.
    parts_.loop.post([gone = std::move(found->second)] {});
    machines_.erase(found);
    announced_states_.erase(name);
    const Status removed = parts_.run.remove_machine(name);
    if (!removed.has_value()) {
        log::warn("machine_directory_left",
                  {{"machine", name}, {"reason", removed.error().to_string()}});
    }
    parts_.metrics.machine_ended(end.reason);
    parts_.events.append("stopped", name, {{"reason", end.reason}, {"detail", end.detail}});
    if (all_ != nullptr) {
        all_->machine_gone(name);
    }
    for (const std::uint64_t operation : stops) {
        parts_.operations.succeed(operation,
                                  {{"name", name}, {"reason", end.reason}, {"detail", end.detail}});
    }
}

} // namespace godwit::control
