/// What concerns all machines of the host at once: plans, exchanging them all, what is remembered
/// of past exchanges.

#include "base/log.h"
#include "control/exchange_all.h"
#include "control/host_division.h"
#include "control/plan_run.h"
#include "control/program_path.h"
#include "control/supervisor.h"
#include "handover/phase.h"

#include <nlohmann/json.hpp>
#include <unistd.h>

#include <algorithm>

namespace godwit::control {

Status Supervisor::choose_program(std::string& program) const {
    if (program.empty()) {
        program = parts_.vmm_program;
    }
    program = GODWIT_TRY(vmm_program_at(program));
    return ok();
}

namespace {

void remember(BlackoutHistory& history, const Json& report) {
    const Json blackout = report.value("blackout_us", Json());
    if (text_member(report, "outcome") == "done" && blackout.is_number_integer()) {
        history.add(text_member(report, "machine"),
                    text_member(report, "mode", name_of(ExchangeMode::hot_restart)),
                    blackout.get<std::int64_t>());
    }
}

} // namespace

BlackoutHistory& Supervisor::blackouts() {
    if (blackouts_ == nullptr) {
        blackouts_ = std::make_unique<BlackoutHistory>();
        for (const std::string& line : history_.last("", ReportHistory::reports_read_max)) {
            const Result<Json> report = parse_json(line);
            if (report.has_value() && text_member(*report, "operation") == "exchange") {
                remember(*blackouts_, *report);
            }
        }
    }
    return *blackouts_;
}

void Supervisor::exchange_ended(const std::string& machine, Json& report, ExchangeMode mode) {
    BlackoutHistory& past = blackouts(); // Before the history has this one too.
    report["mode"] = name_of(mode);
    report["finished"] = time_text(parts_.clock.unix_nanoseconds());
    history_.append(report);
    remember(past, report);
    Metrics::Exchange numbers{.mode = name_of(mode), .outcome = text_member(report, "outcome")};
    const Json phases = report.value("phases_us", Json());
    for (std::size_t i = 0; i < handover::phase_count; ++i) {
        const std::string_view name = handover::name_of(static_cast<handover::Phase>(i));
        if (phases.is_object() && phases.contains(name)) {
            numbers.phases.emplace_back(name,
                                        static_cast<double>(number_member(phases, name)) / 1e6);
        }
    }
    const Json blackout = report.value("blackout_us", Json());
    if (blackout.is_number_integer() && blackout.get<std::int64_t>() >= 0) {
        numbers.blackout_seconds = static_cast<double>(blackout.get<std::int64_t>()) / 1e6;
    }
    parts_.metrics.exchange_ended(numbers);
    if (all_ != nullptr) {
        const std::shared_ptr<ExchangeAll> all = all_;
        all->exchange_ended(machine, report);
    }
}

Result<std::uint64_t> Supervisor::exchange_all(ExchangeAllRequest request) {
    GODWIT_TRY(check_reach(request.exchange.mode, ExchangeReach::all_machines));
    GODWIT_TRY(choose_program(request.exchange.program));
    if (all_ != nullptr || suspend_ != nullptr || suspension_ != nullptr) {
        return Error(
            ErrorCode::conflict,
            "another exchange of all machines is under way: wait for its end or cancel it");
    }
    all_ = std::make_shared<ExchangeAll>(*this, std::move(request));
    const std::shared_ptr<ExchangeAll> made = all_;
    const std::uint64_t operation =
        parts_.operations.begin("exchange-all", "", [weak = std::weak_ptr(made)]() -> Status {
            const auto run = weak.lock();
            return run == nullptr ? Error(ErrorCode::conflict, "the exchange is over")
                                  : run->cancel();
        });
    made->start(operation);
    return operation;
}

HostDivision* Supervisor::division() const {
    return all_ == nullptr ? nullptr : all_->division();
}

Result<DivisionRequest> Supervisor::division_of(const ExchangeAllRequest& request) const {
    namespace partition = exchange::partition;
    DivisionRequest division{.vmm_program = request.exchange.program};
    division.daemon_program = GODWIT_TRY(daemon_program_beside(request.exchange.program));
    division.target_cpus = GODWIT_TRY(
        partition::parse_cpu_set(request.target_cpus).with_context("request: /target_cpus"));
    const partition::CpuSet host = GODWIT_TRY(partition::allowed_cpus(::getpid()));
    if (division.target_cpus.empty() || division.target_cpus.size() >= host.size() ||
        !std::ranges::includes(host, division.target_cpus)) {
        return Error(ErrorCode::invalid_argument,
                     "the CPUs '" + partition::to_string(division.target_cpus) +
                         "' cannot be given to a second instance: name some, not all, of this "
                         "host's " +
                         partition::to_string(host) + " with --target-cpus");
    }
    if (parts_.pool_bytes == 0) {
        return Error(ErrorCode::unsupported,
                     "this host has no memory pool (godwitd --pool 0), so nothing can move by "
                     "pointers");
    }
    // An instance has a frame of its own; a pool that is made for this has free ones.
    if (pool_.has_pool() && pool_.free_frames() == 0) {
        return Error(ErrorCode::resource_exhausted,
                     "the host's memory pool is full; an exchange needs 2 MiB of it for itself: "
                     "stop a machine first");
    }
    return division;
}

void Supervisor::conclude(std::uint64_t operation, const Json& report) {
    if (!report.is_object()) {
        log::warn("exchange_without_report", {{"operation", operation}});
        return;
    }
    parts_.operations.resume(operation, "exchange-all");
    Json short_report = report; // Each machine's report stands there already.
    short_report.erase("machines");
    history_.append(short_report);
    parts_.events.append("exchanged_all", "", {{"report", short_report}});
    parts_.operations.succeed(operation, report);
}

void Supervisor::make_plan(const ExchangeAllRequest& request, Reply<ExchangePlan> reply) {
    if (plans_.size() >= PlanRun::runs_max) {
        reply(Error(ErrorCode::resource_exhausted, "too many plans are being made: try again"));
        return;
    }
    const auto run = std::make_shared<PlanRun>(*this, request, std::move(reply));
    plans_.insert(run);
    run->start();
}

void Supervisor::plan_exchange(ExchangeAllRequest request, Reply<Json> reply) {
    Status good = check_built(request.exchange.mode);
    if (good.has_value()) {
        good = choose_program(request.exchange.program);
    }
    if (good.has_value() && !request.machine.empty() && find(request.machine) == nullptr) {
        good = find_or_error(request.machine).error();
    }
    if (!good.has_value()) {
        reply(good.error());
        return;
    }
    make_plan(
        request,
        Reply<ExchangePlan>([reply = std::move(reply)](const Result<ExchangePlan>& plan) mutable {
            reply(plan.has_value() ? Result<Json>(json_of(*plan)) : Result<Json>(plan.error()));
        }));
}

Json Supervisor::history(const std::string& machine, std::size_t limit) const {
    Json list = Json::array();
    for (const std::string& line : history_.last(machine, limit)) {
        Result<Json> report = parse_json(line);
        if (report.has_value()) {
            list.push_back(std::move(*report));
        }
    }
    return list;
}

} // namespace godwit::control
