#include "control/api.h"

#include "control/disk_requests.h"
#include "control/exchange_request.h"
#include "control/json_text.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <charconv>

namespace godwit::control {

namespace {

using std::chrono::milliseconds;

constexpr std::size_t path_bytes_max = 4096;
/// A machine that was not ready by now has been given up by the supervisor.
constexpr milliseconds start_wait_max{60'000};
constexpr std::uint64_t wait_ms_max = 60'000;
constexpr std::uint64_t stop_timeout_s_max = 86'400;
/// Reports in one answer.
constexpr std::uint64_t reports_max = 1'000;

ApiResponse json_response(int status, const Json& body) {
    return {.status = status, .body = json_text(body) + "\n"};
}

Result<std::uint64_t> number_of(const std::string& text, std::string_view what) {
    std::uint64_t number = 0;
    const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (failure != std::errc() || end != text.data() + text.size()) {
        return Error(ErrorCode::invalid_argument,
                     std::string(what) + ": must be a whole number, not '" + text.substr(0, 40) +
                         "'");
    }
    return number;
}

} // namespace

int http_status_of(ErrorCode code) noexcept {
    switch (code) {
    case ErrorCode::invalid_argument:
    case ErrorCode::corrupt:
        return 400;
    case ErrorCode::permission_denied:
        return 403;
    case ErrorCode::not_found:
        return 404;
    case ErrorCode::already_exists:
    case ErrorCode::busy:
    case ErrorCode::conflict:
    case ErrorCode::cancelled:
        return 409;
    case ErrorCode::unsupported:
        return 501;
    case ErrorCode::peer_closed:
        return 502;
    case ErrorCode::resource_exhausted:
        return 503;
    case ErrorCode::timeout:
        return 504;
    case ErrorCode::io:
    case ErrorCode::internal:
        return 500;
    }
    return 500;
}

ApiResponse error_response(const Error& error) {
    return json_response(http_status_of(error.code()), {{"error", json_of(error)}});
}

std::optional<std::vector<std::string>> match_route(std::string_view pattern,
                                                    std::string_view path) {
    std::vector<std::string> values;
    while (!pattern.empty()) {
        const std::string_view want = pattern.substr(1, pattern.find('/', 1) - 1);
        if (!path.starts_with('/')) {
            return std::nullopt;
        }
        const std::string_view have = path.substr(1, path.find('/', 1) - 1);
        if (want.starts_with('{')) {
            if (have.empty()) {
                return std::nullopt;
            }
            values.emplace_back(have);
        } else if (want != have) {
            return std::nullopt;
        }
        pattern.remove_prefix(want.size() + 1);
        path.remove_prefix(have.size() + 1);
    }
    return path.empty() ? std::optional(values) : std::nullopt;
}

struct Api::Call {
    ApiRequest request;
    std::vector<std::string> values; ///< Of the braces in the pattern.
    Json body;                       ///< An object.
    Reply<ApiResponse> reply;

    void fail(const Error& error) { reply(error_response(error)); }
    void answer(int status, const Json& json) { reply(json_response(status, json)); }
};

struct Api::Route {
    std::string_view method;
    std::string_view pattern;
    void (Api::*handler)(Call);
};

std::span<const Api::Route> Api::table() {
    static constexpr std::array<Route, 31> routes{{
        {"GET", "/metrics", &Api::metrics},
        {"GET", "/api/v1/version", &Api::version},
        {"GET", "/api/v1/machines", &Api::list_machines},
        {"POST", "/api/v1/machines", &Api::create_machine},
        {"GET", "/api/v1/machines/{name}", &Api::machine_info},
        {"PUT", "/api/v1/machines/{name}/pause", &Api::pause},
        {"PUT", "/api/v1/machines/{name}/resume", &Api::resume},
        {"PUT", "/api/v1/machines/{name}/stop", &Api::stop},
        {"PUT", "/api/v1/machines/{name}/snapshot", &Api::snapshot},
        {"PUT", "/api/v1/machines/{name}/exchange", &Api::exchange},
        {"PUT", "/api/v1/machines/{name}/recover", &Api::recover},
        {"PUT", "/api/v1/machines/{name}/balloon", &Api::balloon},
        {"PUT", "/api/v1/machines/{name}/disks/{disk}/refresh", &Api::refresh_disk},
        {"GET", "/api/v1/machines/{name}/disks", &Api::disks},
        {"PUT", "/api/v1/disks/move", &Api::move_disks},
        {"PUT", "/api/v1/machines/{name}/disks/{disk}/move", &Api::move_disk},
        {"DELETE", "/api/v1/machines/{name}/disks/{disk}/move", &Api::cancel_disk_move},
        {"PUT", "/api/v1/machines/{name}/disks/{disk}/snapshot", &Api::snapshot_disk},
        {"PUT", "/api/v1/machines/{name}/disks/{disk}/merge", &Api::merge_disk},
        {"DELETE", "/api/v1/machines/{name}/disks/{disk}/merge", &Api::cancel_disk_move},
        {"GET", "/api/v1/machines/{name}/reports", &Api::machine_reports},
        {"POST", "/api/v1/restore", &Api::restore},
        {"PUT", "/api/v1/exchange", &Api::exchange_all},
        {"PUT", "/api/v1/exchange/plan", &Api::plan_exchange},
        {"GET", "/api/v1/reports", &Api::reports},
        {"PUT", "/api/v1/suspension", &Api::suspend},
        {"GET", "/api/v1/suspension", &Api::suspension},
        {"GET", "/api/v1/pool", &Api::pool},
        {"GET", "/api/v1/operations", &Api::list_operations},
        {"GET", "/api/v1/operations/{id}", &Api::show_operation},
        {"DELETE", "/api/v1/operations/{id}", &Api::cancel_operation},
    }};
    return routes;
}

std::vector<Api::RouteName> Api::routes() {
    std::vector<RouteName> names;
    for (const Route& route : table()) {
        names.push_back({.method = route.method, .pattern = route.pattern});
    }
    names.push_back({.method = "GET", .pattern = events_route});
    return names;
}

void Api::handle(ApiRequest request, Reply<ApiResponse> reply) {
    if (closed_) {
        reply(Error(ErrorCode::cancelled, "godwitd ends"));
        return;
    }
    Call call{.request = std::move(request), .values = {}, .body = {}, .reply = std::move(reply)};
    const std::string& path = call.request.path;
    if (path.size() > path_bytes_max || call.request.body.size() > request_body_bytes_max) {
        call.fail(Error(ErrorCode::invalid_argument,
                        "the request is too large; a body has at most " +
                            std::to_string(request_body_bytes_max) + " bytes"));
        return;
    }
    const Route* chosen = nullptr;
    bool known_path = false;
    for (const Route& route : table()) {
        std::optional<std::vector<std::string>> values = match_route(route.pattern, path);
        if (!values.has_value()) {
            continue;
        }
        known_path = true;
        if (route.method == call.request.method) {
            chosen = &route;
            call.values = std::move(*values);
        }
    }
    if (chosen == nullptr) {
        const Error error(ErrorCode::not_found,
                          known_path
                              ? "this path does not take " + call.request.method.substr(0, 16)
                              : "there is no path '" + path.substr(0, 80) + "' in this API");
        ApiResponse response = error_response(error);
        response.status = known_path ? 405 : 404;
        call.reply(std::move(response));
        return;
    }
    if (chosen->pattern.find("{name}") != std::string_view::npos) {
        const Status good = check_machine_name(call.values.front());
        if (!good.has_value()) {
            call.fail(good.error());
            return;
        }
    }
    call.body = Json::object();
    if (call.request.method != "GET" && !call.request.body.empty()) {
        Result<Json> body = parse_json(call.request.body);
        if (!body.has_value()) {
            call.fail(body.error());
            return;
        }
        call.body = std::move(*body);
    }
    (this->*chosen->handler)(std::move(call));
}

void Api::version(Call call) {
    call.answer(200,
                {{"version", identity_.build.version},
                 {"build_id", identity_.build.build_id},
                 {"api", "v1"},
                 {"pid", identity_.pid},
                 {"run_directory", identity_.run_directory}});
}

void Api::metrics(Call call) {
    call.reply(
        ApiResponse{.status = 200,
                    .content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8",
                    .body = metrics_.render(supervisor_.count_by_state(), identity_.build)});
}

void Api::list_machines(Call call) {
    call.answer(200, {{"machines", supervisor_.list()}});
}

void Api::pool(Call call) {
    call.answer(200, supervisor_.pool_facts());
}

void Api::create_machine(Call call) {
    const Result<std::uint64_t> operation = supervisor_.run(call.request.body);
    if (!operation.has_value()) {
        call.fail(operation.error());
        return;
    }
    operations_.wait(
        *operation,
        Operations::until_end,
        start_wait_max,
        Reply<std::string>([reply = std::move(call.reply)](Result<std::string> text) mutable {
            const Result<Json> parsed =
                text.has_value() ? parse_json(*text) : Result<Json>(text.error());
            if (!parsed.has_value()) {
                reply(error_response(parsed.error()));
                return;
            }
            const std::string state = text_member(*parsed, "state");
            if (state == "succeeded") {
                reply(json_response(201, (*parsed)["result"]));
            } else if (state == "running") {
                reply(json_response(202, *parsed));
            } else {
                reply(error_response(error_of((*parsed)["error"])));
            }
        }));
}

void Api::machine_info(Call call) {
    supervisor_.info(call.values[0],
                     Reply<Json>([reply = std::move(call.reply)](Result<Json> answer) mutable {
                         reply(answer.has_value() ? json_response(200, *answer)
                                                  : error_response(answer.error()));
                     }));
}

void Api::machine_reports(Call call) {
    const Result<Json> reports = supervisor_.reports(call.values[0]);
    if (!reports.has_value()) {
        call.fail(reports.error());
        return;
    }
    call.answer(200, {{"reports", *reports}});
}

void Api::pass_on(Call call, std::string_view method, const Json& params) {
    const std::string name = call.values[0];
    supervisor_.ask(
        name,
        method,
        params,
        Reply<Json>(
            [this, name, reply = std::move(call.reply)](const Result<Json>& answer) mutable {
                if (!answer.has_value()) {
                    reply(error_response(answer.error()));
                    return;
                }
                const Json machines = supervisor_.list();
                const auto found = std::ranges::find_if(machines, [&](const Json& machine) {
                    return text_member(machine, "name") == name;
                });
                reply(json_response(200, found == machines.end() ? Json::object() : *found));
            }));
}

void Api::pause(Call call) {
    pass_on(std::move(call), "pause", Json::object());
}

void Api::resume(Call call) {
    pass_on(std::move(call), "resume", Json::object());
}

namespace {

Result<Json> read_balloon(const Json& body) {
    JsonObject object = GODWIT_TRY(JsonObject::of(body));
    const std::uint64_t bytes = GODWIT_TRY(object.required_number("bytes", {}));
    GODWIT_TRY(object.finish());
    if (bytes % 4096 != 0) {
        return Error(ErrorCode::invalid_argument,
                     "request: /bytes is " + std::to_string(bytes) +
                         ": must be a multiple of 4096");
    }
    return Json{{"bytes", bytes}};
}

Result<Supervisor::StopRequest> read_stop(const Json& body) {
    JsonObject object = GODWIT_TRY(JsonObject::of(body));
    Supervisor::StopRequest request;
    request.force = GODWIT_TRY(object.flag("force", false));
    const auto timeout =
        GODWIT_TRY(object.number("timeout_s", {.min = 1, .max = stop_timeout_s_max}));
    request.timeout = std::chrono::seconds(timeout.value_or(30));
    GODWIT_TRY(object.finish());
    return request;
}

Result<std::string> read_directory(const Json& body) {
    JsonObject object = GODWIT_TRY(JsonObject::of(body));
    std::string directory = GODWIT_TRY(object.required_text("directory", path_bytes_max));
    GODWIT_TRY(object.finish());
    return directory;
}

Result<Supervisor::RestoreRequest> read_restore(const Json& body) {
    JsonObject object = GODWIT_TRY(JsonObject::of(body));
    Supervisor::RestoreRequest request;
    request.directory = GODWIT_TRY(object.required_text("directory", path_bytes_max));
    request.name = GODWIT_TRY(object.text("name", machine_name_bytes_max)).value_or("");
    request.copy_ram = GODWIT_TRY(object.flag("copy_ram", false));
    GODWIT_TRY(object.finish());
    if (!request.name.empty()) {
        GODWIT_TRY(check_machine_name(request.name).with_context("request: /name"));
    }
    return request;
}

} // namespace

void Api::balloon(Call call) {
    const Result<Json> params = read_balloon(call.body);
    if (!params.has_value()) {
        call.fail(params.error());
        return;
    }
    pass_on(std::move(call), "set_balloon", *params);
}

void Api::refresh_disk(Call call) {
    const Status good = check_disk_name(call.values[1]);
    if (!good.has_value()) {
        call.fail(good.error());
        return;
    }
    const Json params{{"disk", call.values[1]}};
    pass_on(std::move(call), "refresh_disk", params);
}

void Api::disks(Call call) {
    supervisor_.disks(call.values[0],
                      Reply<Json>([reply = std::move(call.reply)](Result<Json> answer) mutable {
                          reply(answer.has_value() ? json_response(200, *answer)
                                                   : error_response(answer.error()));
                      }));
}

void Api::move_disk(Call call) {
    const Status good = check_disk_name(call.values[1]);
    const Result<Json> params =
        good.has_value() ? read_disk_move(call.body) : Result<Json>(good.error());
    const Result<std::uint64_t> operation =
        params.has_value() ? supervisor_.move_disk(call.values[0], call.values[1], *params)
                           : Result<std::uint64_t>(params.error());
    answer_operation(std::move(call), operation);
}

void Api::move_disks(Call call) {
    Result<DiskMoveAllRequest> request = read_disk_move_all(call.body);
    const Result<std::uint64_t> operation = request.has_value()
                                                ? supervisor_.move_disks(std::move(*request))
                                                : Result<std::uint64_t>(request.error());
    answer_operation(std::move(call), operation);
}

void Api::cancel_disk_move(Call call) {
    const Result<std::uint64_t> operation =
        supervisor_.cancel_disk_move(call.values[0], call.values[1]);
    answer_operation(std::move(call), operation);
}

void Api::snapshot_disk(Call call) {
    const Status good = check_disk_name(call.values[1]);
    const Result<Json> params =
        good.has_value() ? read_disk_snapshot(call.body) : Result<Json>(good.error());
    if (!params.has_value()) {
        call.fail(params.error());
        return;
    }
    supervisor_.snapshot_disk(
        call.values[0],
        call.values[1],
        *params,
        Reply<Json>([reply = std::move(call.reply)](Result<Json> answer) mutable {
            reply(answer.has_value() ? json_response(200, *answer)
                                     : error_response(answer.error()));
        }));
}

void Api::merge_disk(Call call) {
    const Status good = check_disk_name(call.values[1]);
    const Result<std::uint64_t> operation =
        good.has_value() ? supervisor_.merge_disk(call.values[0], call.values[1])
                         : Result<std::uint64_t>(good.error());
    answer_operation(std::move(call), operation);
}

void Api::answer_operation(Call call, const Result<std::uint64_t>& operation) {
    if (!operation.has_value()) {
        call.fail(operation.error());
        return;
    }
    const Result<std::string> text = operations_.describe(*operation);
    if (!text.has_value()) {
        call.fail(text.error());
        return;
    }
    call.reply(ApiResponse{.status = 202, .body = *text + "\n"});
}

void Api::stop(Call call) {
    const auto request = read_stop(call.body);
    const Result<std::uint64_t> operation = request.has_value()
                                                ? supervisor_.stop(call.values[0], *request)
                                                : Result<std::uint64_t>(request.error());
    answer_operation(std::move(call), operation);
}

void Api::snapshot(Call call) {
    const auto directory = read_directory(call.body);
    const Result<std::uint64_t> operation = directory.has_value()
                                                ? supervisor_.snapshot(call.values[0], *directory)
                                                : Result<std::uint64_t>(directory.error());
    answer_operation(std::move(call), operation);
}

void Api::exchange(Call call) {
    const auto request = read_exchange_request(call.body);
    const Result<std::uint64_t> operation = request.has_value()
                                                ? supervisor_.exchange(call.values[0], *request)
                                                : Result<std::uint64_t>(request.error());
    answer_operation(std::move(call), operation);
}

void Api::exchange_all(Call call) {
    auto request = read_exchange_all_request(call.body);
    const Result<std::uint64_t> operation = request.has_value()
                                                ? supervisor_.exchange_all(std::move(*request))
                                                : Result<std::uint64_t>(request.error());
    answer_operation(std::move(call), operation);
}

void Api::plan_exchange(Call call) {
    auto request = read_plan_request(call.body);
    if (!request.has_value()) {
        call.fail(request.error());
        return;
    }
    supervisor_.plan_exchange(
        std::move(*request),
        Reply<Json>([reply = std::move(call.reply)](const Result<Json>& plan) mutable {
            reply(plan.has_value() ? json_response(200, *plan) : error_response(plan.error()));
        }));
}

void Api::reports(Call call) {
    const auto query = [&](const char* name, const char* otherwise) {
        const auto found = call.request.query.find(name);
        return found == call.request.query.end() ? std::string(otherwise) : found->second;
    };
    const std::string machine = query("machine", "");
    const Result<std::uint64_t> limit = number_of(query("limit", "100"), "limit");
    const Status good = machine.empty() ? ok() : check_machine_name(machine);
    if (!limit.has_value() || !good.has_value()) {
        call.fail(limit.has_value() ? good.error() : limit.error());
        return;
    }
    call.answer(200, {{"reports", supervisor_.history(machine, std::min(*limit, reports_max))}});
}

void Api::suspend(Call call) {
    const auto request = read_suspend_request(call.body);
    answer_operation(std::move(call),
                     request.has_value() ? supervisor_.suspend(*request)
                                         : Result<std::uint64_t>(request.error()));
}

void Api::suspension(Call call) {
    supervisor_.suspension(Reply<Json>([reply =
                                            std::move(call.reply)](Result<Json> report) mutable {
        reply(report.has_value() ? json_response(200, *report) : error_response(report.error()));
    }));
}

void Api::recover(Call call) {
    const std::string name = call.values[0];
    answer_operation(std::move(call), supervisor_.recover(name));
}

void Api::restore(Call call) {
    const auto request = read_restore(call.body);
    answer_operation(std::move(call),
                     request.has_value() ? supervisor_.restore(*request)
                                         : Result<std::uint64_t>(request.error()));
}

void Api::list_operations(Call call) {
    call.answer(200, {{"operations", operations_.describe_all()}});
}

void Api::show_operation(Call call) {
    const auto query = [&](const char* name) {
        const auto found = call.request.query.find(name);
        return found == call.request.query.end() ? std::string("0") : found->second;
    };
    const Result<std::uint64_t> id = number_of(call.values[0], "the operation's id");
    const Result<std::uint64_t> wait_ms = number_of(query("wait_ms"), "wait_ms");
    const Result<std::uint64_t> revision = number_of(query("revision"), "revision");
    for (const auto* number : {&id, &wait_ms, &revision}) {
        if (!number->has_value()) {
            call.fail(number->error());
            return;
        }
    }
    const milliseconds patience(static_cast<std::int64_t>(std::min(*wait_ms, wait_ms_max)));
    operations_.wait(*id,
                     patience.count() == 0 ? 0 : *revision,
                     patience,
                     Reply<std::string>([reply = std::move(call.reply)](
                                            const Result<std::string>& text) mutable {
                         reply(text.has_value() ? ApiResponse{.status = 200, .body = *text + "\n"}
                                                : error_response(text.error()));
                     }));
}

void Api::cancel_operation(Call call) {
    const Result<std::uint64_t> id = number_of(call.values[0], "the operation's id");
    const Status done = id.has_value() ? operations_.cancel(*id) : Status(id.error());
    if (!done.has_value()) {
        call.fail(done.error());
        return;
    }
    answer_operation(std::move(call), *id);
}

} // namespace godwit::control
