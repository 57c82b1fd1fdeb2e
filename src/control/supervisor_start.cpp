/// Starting machines, new ones and ones from a snapshot, and finding those that run already.

#include "base/log.h"
#include "base/scope_guard.h"
#include "base/units.h"
#include "control/division_words.h"
#include "control/supervisor.h"
#include "control/suspension.h"
#include "exchange/partition/cpu_partition.h"
#include "sys/fd.h"

#include <nlohmann/json.hpp>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>

namespace godwit::control {

namespace {

constexpr std::chrono::milliseconds settle_time_max{2'000};
constexpr std::size_t spec_bytes_max = 64 * kib;
/// The machine document inside a snapshot directory (docs/formats/snapshot.md).
constexpr const char* snapshot_document = "/machine.json";
/// How often processes are looked for that may live and could not be reached.
constexpr std::chrono::milliseconds doubt_period{1'000};

MachineEnd not_found_alive() {
    return {.reason = "killed", .detail = "no VMM process of it was left when godwitd started"};
}

} // namespace

Result<std::uint64_t> Supervisor::run(std::string_view document_json) {
    MachineDocument document = GODWIT_TRY(read_machine_document(document_json));
    if (!document.runs.empty()) {
        return Error(ErrorCode::invalid_argument,
                     "machine document: /memory/runs: where RAM lies in the pool is for godwitd to "
                     "choose; leave it out");
    }
    const std::string spec_file = parts_.run.spec_file(document.name);
    return begin_start("run", std::move(document), {"--spec", spec_file});
}

Result<std::uint64_t> Supervisor::restore(const RestoreRequest& request) {
    const std::string& directory = request.directory;
    if (!std::filesystem::path(directory).is_absolute()) {
        return Error(ErrorCode::invalid_argument,
                     "request: /directory is '" + directory + "': must be an absolute path");
    }
    Result<std::string> text = sys::read_file(directory + snapshot_document, spec_bytes_max);
    if (!text.has_value()) {
        return std::move(text.error()).with_context("'" + directory + "' is no snapshot");
    }
    MachineDocument document = request.name.empty()
                                   ? GODWIT_TRY(read_machine_document(*text))
                                   : GODWIT_TRY(renamed_machine_document(*text, request.name));
    std::vector<std::string> source{"--restore", directory};
    if (request.copy_ram) {
        source.emplace_back("--copy-ram");
    }
    if (document.in_pool) {
        source.insert(source.end(), {"--placement", parts_.run.spec_file(document.name)});
    }
    return begin_start("restore", std::move(document), std::move(source));
}

Result<std::uint64_t> Supervisor::begin_start(std::string_view kind,
                                              MachineDocument document,
                                              std::vector<std::string> source) {
    const std::string name = document.name;
    GODWIT_TRY(check_machine_name(name));
    GODWIT_TRY(parts_.run.check_socket_paths(name));
    if (machines_.contains(name)) {
        return Error(ErrorCode::already_exists,
                     "there is a machine '" + name + "' already; stop it or choose another name");
    }
    if (division() != nullptr) {
        return Error(ErrorCode::busy,
                     "the host is being handed over to a new godwitd: try again when 'godwit "
                     "exchange' has ended");
    }
    if (machines_.size() >= machines_max) {
        return Error(ErrorCode::resource_exhausted,
                     "this host has " + std::to_string(machines_max) + " machines, the limit");
    }
    GODWIT_TRY(place_memory(document));
    ScopeGuard take_memory_back([&] { release_memory(name, {}); });
    GODWIT_TRY(parts_.run.create_machine(name));
    const Status written = sys::write_file_atomically(parts_.run.spec_file(name), document.json);
    if (!written.has_value()) {
        discard(parts_.run.remove_machine(name), "the first error counts");
        return written.error();
    }
    auto made = std::make_unique<MachineEntry>();
    MachineEntry& entry = *made;
    entry.document = std::move(document);
    entry.program = parts_.vmm_program;
    entry.starting = true;
    machines_.emplace(name, std::move(made));
    take_memory_back.commit(); // From here on forget() does it.
    const std::uint64_t operation = parts_.operations.begin(kind, name, [this, name]() -> Status {
        MachineEntry* const starting = find(name);
        if (starting == nullptr || !starting->starting || starting->owner == nullptr) {
            return Error(ErrorCode::conflict, "the machine runs already");
        }
        starting->end = MachineEnd{.reason = "killed", .detail = "its start was cancelled"};
        starting->owner->kill("its start was cancelled");
        return ok();
    });
    entry.operation = operation;
    parts_.operations.set_phase(operation, "starting");
    announce_state(entry);
    Status launched =
        launch_owner(entry, std::move(source), Reply<void>([this, name, operation](Status outcome) {
                         started(name, operation, std::move(outcome));
                     }));
    if (!launched.has_value()) {
        started(name, operation, std::move(launched));
    }
    return operation;
}

Status
Supervisor::launch_owner(MachineEntry& entry, std::vector<std::string> source, Reply<void> ready) {
    const VmmLaunch launch{.program = entry.program,
                           .machine = entry.document.name,
                           .source = std::move(source),
                           .incoming = nullptr,
                           .extra = pool_descriptors(entry.document)};
    entry.adopted = false;
    entry.end.reset();
    Result<std::shared_ptr<VmmInstance>> owner =
        VmmInstance::launch(parts_.loop, parts_.run, launch, *this, ready);
    if (!owner.has_value()) {
        ready.dismiss();
        return std::move(owner.error());
    }
    entry.owner = std::move(*owner);
    return ok();
}

void Supervisor::started(const std::string& name, std::uint64_t operation, Status outcome) {
    MachineEntry* const entry = find(name);
    if (entry == nullptr || !parts_.operations.running(operation)) {
        return;
    }
    if (outcome.has_value()) {
        const std::shared_ptr<VmmInstance> owner = entry->owner;
        owner->refresh_status(Reply<void>([this, name, operation](const Status&) {
            MachineEntry* const up = find(name);
            if (up == nullptr) {
                parts_.operations.fail(
                    operation,
                    Error(ErrorCode::conflict, "the machine ended as soon as it had started"),
                    Json());
                return;
            }
            up->starting = false;
            up->operation = 0;
            announce_state(*up);
            parts_.events.append("started", name, {{"operation", operation}});
            parts_.operations.succeed(operation, summary(*up));
            if (up->owner == nullptr) {
                owner_gone(*up, {});
            }
        }));
        return;
    }
    if (entry->owner != nullptr) {
        entry->owner->kill("its start failed");
    }
    const bool cancelled =
        entry->end.has_value() && entry->end->detail == "its start was cancelled";
    const Error error =
        cancelled ? Error(ErrorCode::cancelled, "the start was cancelled") : outcome.error();
    forget(name, {.reason = "start_failed", .detail = error.to_string()});
    parts_.operations.fail(operation, error, Json());
}

void Supervisor::adopt_all(Reply<void> settled) {
    const Result<std::vector<std::string>> names = parts_.run.list_machines();
    if (!names.has_value()) {
        settled(names.error());
        return;
    }
    // First: afterwards there may be no descriptors left for timers.
    Result<sys::EventLoop::Handle> timer = parts_.loop.schedule(settle_time_max, {}, [this] {
        settle_timer_.reset();
        settled_(ok());
    });
    const Status armed = timer.has_value() ? arm_doubts() : Status(timer.error());
    if (!armed.has_value()) {
        settled(armed.error());
        return;
    }
    settle_timer_ = std::move(*timer);
    settled_ = std::move(settled);
    for (const std::string& name : *names) {
        adopt_machine(name);
    }
    if (std::unique_ptr<Json> note = Suspension::read_note(parts_.run)) {
        suspension_ =
            std::make_unique<Suspension>(*this, std::move(note), Suspension::operation_none);
        suspension_->begin();
    }
    const Status tidied = pool_.keep_only(pool_keepers()); // If it was inherited.
    if (!tidied.has_value()) {
        log::warn("pool_not_tidied", {{"reason", tidied.error().to_string()}});
    }
    check_settled();
}

void Supervisor::read_document(MachineEntry& entry) {
    const std::string name = entry.document.name;
    const Result<std::string> text = sys::read_file(parts_.run.spec_file(name), spec_bytes_max);
    Result<MachineDocument> document =
        text.has_value() ? read_machine_document(*text) : Result<MachineDocument>(text.error());
    entry.document_known = document.has_value();
    if (document.has_value()) {
        entry.document = std::move(*document);
        entry.document.name = name;
    } else {
        log::warn("machine_document_unreadable",
                  {{"machine", name}, {"reason", document.error().to_string()}});
    }
}

/// A process we find is in a part of a divided host only if both godwitds of it have died.
void Supervisor::leave_old_division(int pid) const {
    using exchange::partition::CpuPartition;
    if (division() != nullptr) {
        return;
    }
    for (const std::string& name : CpuPartition::names_of(pid, division::cpu_partition_prefix)) {
        log::info("old_division_dissolved", {{"cpu_partition", name}});
        CpuPartition::remove_left(name);
    }
}

void Supervisor::adopt_instances(MachineEntry& entry) {
    const std::string name = entry.document.name;
    if (!entry.document_known) {
        read_document(entry);
    }
    std::string doubt;
    const Result<std::vector<std::string>> instances = parts_.run.list_instances(name);
    if (!instances.has_value() && instances.error().code() != ErrorCode::not_found) {
        doubt = instances.error().to_string();
    }
    for (const std::string& id : instances.value_or(std::vector<std::string>())) {
        if (entry.knows(id)) {
            continue;
        }
        Result<std::shared_ptr<VmmInstance>> vmm =
            VmmInstance::adopt(parts_.loop, parts_.run, name, id, *this);
        if (vmm.has_value()) {
            leave_old_division((*vmm)->pid());
            entry.others.push_back(std::move(*vmm));
        } else if (vmm.error().os_errno() == ECONNREFUSED || vmm.error().os_errno() == ENOENT) {
            log::info("dead_socket_removed",
                      {{"machine", name}, {"instance", id}, {"why", vmm.error().to_string()}});
            ::unlink(parts_.run.vmm_socket(name, id).c_str());
        } else {
            doubt = "instance " + id + ": " + vmm.error().to_string();
        }
    }
    if (!doubt.empty() && doubt != entry.doubt) {
        const Status armed = arm_doubts();
        log::warn("machine_in_doubt",
                  {{"machine", name}, {"reason", doubt}, {"looked_at_again", armed.has_value()}});
    }
    entry.doubt = std::move(doubt);
}

Status Supervisor::arm_doubts() {
    if (!doubt_timer_.active()) {
        doubt_timer_ = GODWIT_TRY(
            parts_.loop.schedule(doubt_period, doubt_period, [this] { look_at_doubts(); }));
    }
    return ok();
}

void Supervisor::look_at_doubts() {
    std::vector<std::string> doubtful;
    for (const auto& [name, entry] : machines_) {
        if (!entry->doubt.empty()) {
            doubtful.push_back(name);
        }
    }
    if (doubtful.empty()) {
        doubt_timer_.reset();
        return;
    }
    for (const std::string& name : doubtful) {
        MachineEntry& entry = *find(name);
        adopt_instances(entry);
        if (entry.doubt.empty() && entry.owner == nullptr && entry.others.empty()) {
            forget(name, entry.end.value_or(not_found_alive()));
        } else {
            announce_state(entry);
        }
    }
    check_settled();
}

void Supervisor::adopt_machine(const std::string& name) {
    auto made = std::make_unique<MachineEntry>();
    made->document.name = name;
    made->document_known = false;
    made->program = parts_.vmm_program;
    made->adopted = true;
    adopt_instances(*made);
    for (std::string& report : history_.last_of(name)) {
        made->reports.push_back(std::move(report));
    }
    const bool alive = !made->others.empty() || !made->doubt.empty();
    machines_.emplace(name, std::move(made));
    if (!alive) {
        forget(name, not_found_alive());
        return;
    }
    parts_.metrics.machine_adopted();
    parts_.events.append("adopted", name, Json::object());
}

void Supervisor::check_settled() {
    if (!settled_.pending()) {
        return;
    }
    const bool waiting = std::ranges::any_of(machines_, [](const auto& machine) {
        return machine.second->owner == nullptr &&
               (!machine.second->doubt.empty() ||
                std::ranges::any_of(machine.second->others, [](const auto& vmm) {
                    return !vmm->status().has_value() && vmm->trouble() == "not connected yet";
                }));
    });
    const bool pool_missing = pool_.pool() == nullptr && !pool_machines().empty();
    if (!waiting && !pool_missing) {
        settle_timer_.reset();
        settled_(ok());
    }
}

} // namespace godwit::control
