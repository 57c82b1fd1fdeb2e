#include "control/exchange_request.h"

#include "control/json_text.h"

#include <nlohmann/json.hpp>

namespace godwit::control {

namespace {

using std::chrono::milliseconds;

constexpr std::size_t path_bytes_max = 4096;
constexpr std::size_t name_bytes_max = 64;
constexpr std::size_t cpu_list_bytes_max = 4096;
constexpr std::uint64_t deadline_ms_max = 600'000;

Status read_timing(JsonObject& object, Supervisor::ExchangeRequest& request) {
    const auto name = GODWIT_TRY(object.text("timing", name_bytes_max));
    if (!name.has_value()) {
        return ok();
    }
    const auto timing = handover::timing_named(*name);
    if (!timing.has_value()) {
        return Error(ErrorCode::invalid_argument, "request: /timing: must be late or early");
    }
    if (*timing == handover::Timing::early && request.mode != ExchangeMode::hot_restart) {
        return Error(ErrorCode::invalid_argument,
                     "request: /timing: early is for mode hot-restart: in the others nothing "
                     "waits to be fetched");
    }
    request.timing = *timing;
    return ok();
}

/// The members every exchange has.
Result<Supervisor::ExchangeRequest> read_exchange_members(JsonObject& object) {
    Supervisor::ExchangeRequest request;
    request.program = GODWIT_TRY(object.text("program", path_bytes_max)).value_or("");
    const auto mode = GODWIT_TRY(object.text("mode", name_bytes_max));
    const auto deadline =
        GODWIT_TRY(object.number("deadline_ms", {.min = 1, .max = deadline_ms_max}));
    const auto prepare =
        GODWIT_TRY(object.number("prepare_ms", {.min = 1, .max = deadline_ms_max}));
    if (mode.has_value()) {
        request.mode = GODWIT_TRY(exchange_mode_named(*mode));
    }
    request.deadline = milliseconds(deadline.value_or(5'000));
    request.prepare = milliseconds(prepare.value_or(30'000));
    GODWIT_TRY(read_timing(object, request));
    return request;
}

} // namespace

Result<Supervisor::ExchangeRequest> read_exchange_request(const Json& body) {
    JsonObject object = GODWIT_TRY(JsonObject::of(body));
    Supervisor::ExchangeRequest request = GODWIT_TRY(read_exchange_members(object));
    GODWIT_TRY(object.finish());
    return request;
}

Result<Supervisor::ExchangeAllRequest> read_exchange_all_request(const Json& body) {
    JsonObject object = GODWIT_TRY(JsonObject::of(body));
    Supervisor::ExchangeAllRequest request;
    request.exchange = GODWIT_TRY(read_exchange_members(object));
    const auto order = GODWIT_TRY(object.text("order", name_bytes_max));
    const auto concurrency =
        GODWIT_TRY(object.number("concurrency", {.min = 1, .max = concurrency_max}));
    request.target_cpus = GODWIT_TRY(object.text("target_cpus", cpu_list_bytes_max)).value_or("");
    const bool keep_going = GODWIT_TRY(object.flag("keep_going", false));
    const bool again = GODWIT_TRY(object.flag("again", false));
    if (order.has_value()) {
        request.order = GODWIT_TRY(exchange_order_named(*order));
    }
    request.concurrency = static_cast<unsigned>(concurrency.value_or(0));
    request.on_failure =
        keep_going ? Supervisor::OnFailure::keep_going : Supervisor::OnFailure::stop;
    request.current = again ? Supervisor::CurrentBuild::exchange : Supervisor::CurrentBuild::leave;
    GODWIT_TRY(object.finish());
    return request;
}

Result<Supervisor::ExchangeAllRequest> read_plan_request(Json body) {
    std::string machine;
    if (body.is_object() && body.contains("machine")) {
        if (!body["machine"].is_string()) {
            return Error(ErrorCode::invalid_argument, "request: /machine: must be a text");
        }
        machine = body["machine"];
        GODWIT_TRY(check_machine_name(machine).with_context("request: /machine"));
        body.erase("machine");
    }
    Supervisor::ExchangeAllRequest request = GODWIT_TRY(read_exchange_all_request(body));
    if (!machine.empty()) {
        request.machine = machine;
        request.current = Supervisor::CurrentBuild::exchange;
    }
    return request;
}

Result<Supervisor::SuspendRequest> read_suspend_request(const Json& body) {
    JsonObject object = GODWIT_TRY(JsonObject::of(body));
    Supervisor::SuspendRequest request;
    const auto machine = GODWIT_TRY(object.text("machine", machine_name_bytes_max));
    request.all = !machine.has_value();
    if (machine.has_value()) {
        GODWIT_TRY(check_machine_name(*machine).with_context("request: /machine"));
        request.machines = {*machine};
    }
    request.id = GODWIT_TRY(object.text("id", machine_name_bytes_max)).value_or("");
    request.prefix = GODWIT_TRY(object.text("to", path_bytes_max)).value_or("");
    const auto concurrency =
        GODWIT_TRY(object.number("concurrency", {.min = 1, .max = concurrency_max}));
    request.concurrency = static_cast<unsigned>(concurrency.value_or(0));
    const auto deadline =
        GODWIT_TRY(object.number("deadline_ms", {.min = 1, .max = deadline_ms_max}));
    const auto prepare =
        GODWIT_TRY(object.number("prepare_ms", {.min = 1, .max = deadline_ms_max}));
    request.deadline = milliseconds(deadline.value_or(10'000));
    request.prepare = milliseconds(prepare.value_or(30'000));
    GODWIT_TRY(object.finish());
    return request;
}

} // namespace godwit::control
