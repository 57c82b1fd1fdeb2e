#include "control/plan_run.h"

#include "control/host_division.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <thread>

namespace godwit::control {

namespace {

constexpr std::chrono::milliseconds answer_time_max{3'000};

} // namespace

PlanRun::PlanRun(Supervisor& supervisor,
                 Supervisor::ExchangeAllRequest request,
                 Reply<ExchangePlan> done)
    : supervisor_(supervisor), request_(std::move(request)), done_(std::move(done)) {}

PlanRun::~PlanRun() = default;

void PlanRun::start() {
    plan_.mode = request_.exchange.mode;
    plan_.order = request_.order;
    plan_.concurrency = request_.concurrency == 0
                            ? default_concurrency(std::thread::hardware_concurrency())
                            : request_.concurrency;
    plan_.program = request_.exchange.program;
    if (plan_.mode == ExchangeMode::partition) {
        plan_.concurrency = 1; // One by one (requirement MP-4).
        const auto division = supervisor_.division_of(request_);
        plan_.trouble = division.has_value() ? std::string() : division.error().to_string();
    }
    if (plan_.mode == ExchangeMode::suspend) {
        const Status usable = supervisor_.check_suspend_programs(plan_.program);
        plan_.trouble = usable.has_value() ? std::string() : usable.error().to_string();
    }
    const std::weak_ptr<PlanRun> weak = weak_from_this();
    Reply<std::string> reply([weak](const Result<std::string>& text) {
        if (const auto self = weak.lock()) {
            self->probed(text);
        }
    });
    auto probe = ProgramProbe::start(supervisor_.parts_.loop, plan_.program, reply);
    if (!probe.has_value()) {
        reply(probe.error());
        return;
    }
    probe_ = std::move(*probe);
}

void PlanRun::probed(const Result<std::string>& text) {
    Result<Json> description = text.has_value() ? parse_json(*text) : Result<Json>(text.error());
    Json params = Json::object();
    if (description.has_value()) {
        plan_.build_id = text_member(*description, "build_id");
        plan_.version = text_member(*description, "version");
        params["successor"] = std::move(*description);
    } else {
        plan_.trouble = description.error().to_string();
    }
    for (const auto& [name, entry] : supervisor_.machines_) {
        if (!request_.machine.empty() && name != request_.machine) {
            continue;
        }
        MachinePlan machine;
        machine.machine = {.name = name, .memory_bytes = entry->document.memory_bytes};
        machine.state = entry->state();
        machine.expected = supervisor_.blackouts().expected(name, name_of(plan_.mode));
        if (plan_.mode == ExchangeMode::partition && !entry->document.in_pool) {
            machine.blockers.emplace_back("its memory is not in the host's pool and cannot move by "
                                          "pointers: it must be started with --memory SIZE,pool");
        }
        if (plan_.mode == ExchangeMode::suspend && machine.state == "frozen") {
            machine.blockers.emplace_back(Supervisor::frozen_blocker);
        }
        plan_.machines.push_back(std::move(machine));
    }
    // One more than there are machines, so that the last answer cannot come before all are asked.
    unanswered_ = plan_.machines.size() + 1;
    for (std::size_t i = 0; i < plan_.machines.size(); ++i) {
        ask(i, params);
    }
    answered(plan_.machines.size(), Json());
}

void PlanRun::ask(std::size_t index, const Json& params) {
    const Result<MachineEntry*> entry = supervisor_.find_idle(plan_.machines[index].machine.name);
    if (!entry.has_value()) {
        answered(index, entry.error());
        return;
    }
    if ((*entry)->record == nullptr) {
        answered(index,
                 Error(ErrorCode::conflict,
                       "its VMM has not handed out its owner record: nobody knows who may run it"));
        return;
    }
    if (const auto& status = (*entry)->owner->status(); status.has_value()) {
        plan_.machines[index].build_id = status->build_id;
    }
    const std::weak_ptr<PlanRun> weak = weak_from_this();
    (*entry)->owner->call(
        "plan", params, answer_time_max, Reply<Json>([weak, index](const Result<Json>& answer) {
            if (const auto self = weak.lock()) {
                self->answered(index, answer);
            }
        }));
}

void PlanRun::answered(std::size_t index, const Result<Json>& answer) {
    if (index < plan_.machines.size()) {
        MachinePlan& machine = plan_.machines[index];
        if (answer.has_value()) {
            read_answer(machine, *answer);
        } else if (answer.error().code() == ErrorCode::not_found) {
            machine.checked = false;
        } else {
            machine.blockers.push_back(answer.error().to_string());
        }
    }
    if (--unanswered_ == 0) {
        finish();
    }
}

void PlanRun::finish() {
    for (MachinePlan& machine : plan_.machines) {
        if (!plan_.trouble.empty()) {
            machine.blockers.insert(machine.blockers.begin(), plan_.trouble);
        }
        // The other modes take every machine, whatever build it runs.
        const bool current = !plan_.build_id.empty() && machine.build_id == plan_.build_id &&
                             plan_.mode == ExchangeMode::hot_restart;
        if (machine.state == "paused") {
            machine.expected.reset(); // It stands still anyway.
        }
        if (current && request_.current == Supervisor::CurrentBuild::leave) {
            machine.action = PlannedAction::nothing;
        } else if (!machine.blockers.empty()) {
            machine.action = PlannedAction::refused;
        }
    }
    std::vector<OrderedMachine> order;
    for (const MachinePlan& machine : plan_.machines) {
        order.push_back(machine.machine);
    }
    put_in_order(order, plan_.order);
    std::vector<MachinePlan> ordered;
    for (const OrderedMachine& next : order) {
        const auto found = std::ranges::find_if(plan_.machines, [&](const MachinePlan& machine) {
            return machine.machine.name == next.name;
        });
        ordered.push_back(std::move(*found));
    }
    plan_.machines = std::move(ordered);
    const std::shared_ptr<PlanRun> keep = shared_from_this();
    supervisor_.plans_.erase(keep);
    done_(std::move(plan_));
}

} // namespace godwit::control
