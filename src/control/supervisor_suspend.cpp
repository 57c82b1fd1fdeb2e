/// Exchanging the whole hypervisor with its machines suspended in memory, and what comes after it.

#include "base/log.h"
#include "control/exchange_run.h"
#include "control/program_path.h"
#include "control/supervisor.h"
#include "control/suspend_run.h"
#include "control/suspension.h"

#include <nlohmann/json.hpp>
#include <unistd.h>

#include <filesystem>

namespace godwit::control {

namespace {

constexpr std::size_t suspension_waiters_max = 64;

Status check_program(const std::string& program) {
    return ::access(program.c_str(), X_OK) == 0
               ? ok()
               : Status(Error::from_errno(errno, "use '" + program + "'"));
}

} // namespace

Status Supervisor::choose_suspend_programs(SuspendRequest& request) const {
    if (request.prefix.empty()) {
        request.vmm_program = parts_.vmm_program;
        request.daemon_program = program_path("GODWITD", "godwitd");
        return ok();
    }
    request.vmm_program = GODWIT_TRY(vmm_program_at(request.prefix));
    request.daemon_program =
        std::filesystem::path(request.vmm_program).replace_filename("godwitd").string();
    return ok();
}

Status Supervisor::check_suspend_programs(const std::string& vmm_program) const {
    SuspendRequest request;
    request.prefix = vmm_program == parts_.vmm_program ? std::string() : vmm_program;
    GODWIT_TRY(choose_suspend_programs(request));
    GODWIT_TRY(check_program(request.daemon_program));
    return check_program(parts_.keeper_program);
}

Result<std::uint64_t> Supervisor::suspend(SuspendRequest request) {
    if (suspend_ != nullptr || suspension_ != nullptr || all_ != nullptr) {
        return Error(
            ErrorCode::conflict,
            "another exchange of all machines is under way: wait for its end or cancel it");
    }
    GODWIT_TRY(choose_suspend_programs(request));
    if (request.all) {
        request.machines.clear();
        for (const auto& [name, entry] : machines_) {
            request.machines.push_back(name);
        }
    } else {
        request.daemon_program.clear();
        for (const std::string& name : request.machines) {
            GODWIT_TRY(find_or_error(name));
        }
    }
    if (request.id.empty()) {
        request.id = GODWIT_TRY(fresh_instance_id());
    }
    last_suspension_.reset();
    suspend_ = std::make_shared<SuspendRun>(*this, std::move(request));
    const std::uint64_t operation =
        parts_.operations.begin("exchange", "", [weak = std::weak_ptr(suspend_)]() -> Status {
            const auto run = weak.lock();
            return run == nullptr ? Error(ErrorCode::conflict, "the exchange is over")
                                  : run->cancel();
        });
    suspend_->start(operation);
    return operation;
}

void Supervisor::suspension(Reply<Json> reply) {
    if (suspend_ == nullptr && suspension_ == nullptr) {
        reply(last_suspension_ == nullptr
                  ? Result<Json>(Error(ErrorCode::not_found,
                                       "this godwitd has seen no exchange in suspend mode"))
                  : *last_suspension_);
        return;
    }
    if (suspension_waiters_.size() >= suspension_waiters_max) {
        reply(Error(ErrorCode::resource_exhausted, "too many wait for the exchange already"));
        return;
    }
    suspension_waiters_.push_back(std::move(reply));
}

void Supervisor::suspension_over(const Json& report) {
    last_suspension_ = std::make_unique<Json>(report);
    if (report.contains("machines")) {
        for (const Json& machine : report["machines"]) {
            if (MachineEntry* const entry = find(text_member(machine, "machine"))) {
                entry->reports.push_back(json_text(machine));
                if (entry->reports.size() > reports_per_machine_max) {
                    entry->reports.pop_front();
                }
            }
        }
    }
    for (Reply<Json>& waiter : std::exchange(suspension_waiters_, {})) {
        waiter(report);
    }
    // It calls this.
    parts_.loop.post([this] { suspension_.reset(); });
}

} // namespace godwit::control
