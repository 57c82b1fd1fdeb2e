#include "control/disk_requests.h"

#include "control/run_directory.h"

#include <nlohmann/json.hpp>

namespace godwit::control {

namespace {

constexpr std::size_t path_bytes_max = 4096;

} // namespace

Status check_disk_name(const std::string& name) {
    constexpr std::size_t disk_name_bytes_max = 32;
    if (name.size() > disk_name_bytes_max) {
        return Error(ErrorCode::invalid_argument, "a disk's name is like 'disk0'");
    }
    return ok();
}

Result<Json> read_disk_move(const Json& body) {
    constexpr std::size_t scheme_bytes_max = 16;
    JsonObject object = GODWIT_TRY(JsonObject::of(body));
    Json params{{"destination", GODWIT_TRY(object.required_text("destination", path_bytes_max))},
                {"unsafe", GODWIT_TRY(object.flag("unsafe", false))}};
    params["scheme"] = GODWIT_TRY(object.text("scheme", scheme_bytes_max)).value_or("auto");
    params["limit_bytes_per_second"] =
        GODWIT_TRY(object.number("limit_bytes_per_second", {})).value_or(0);
    params["gamma"] = GODWIT_TRY(object.fraction("gamma")).value_or(0.5);
    GODWIT_TRY(object.finish());
    return params;
}

Result<Json> read_disk_snapshot(const Json& body) {
    JsonObject object = GODWIT_TRY(JsonObject::of(body));
    Json params{{"delta", GODWIT_TRY(object.required_text("delta", path_bytes_max))}};
    params["bytes"] = GODWIT_TRY(object.number("bytes", {})).value_or(0);
    GODWIT_TRY(object.finish());
    return params;
}

namespace {

Result<std::vector<std::string>> read_directories(const Json& list) {
    if (!list.is_array() || list.empty() || list.size() > pool_directories_max) {
        return Error(ErrorCode::invalid_argument,
                     "request: /to: must be a list of 1 to " +
                         std::to_string(pool_directories_max) + " directories");
    }
    std::vector<std::string> directories;
    for (const Json& each : list) {
        if (!each.is_string() || each.get_ref<const std::string&>().size() > path_bytes_max) {
            return Error(ErrorCode::invalid_argument, "request: /to: must be a list of paths");
        }
        directories.push_back(each.get<std::string>());
    }
    return directories;
}

} // namespace

Result<DiskMoveAllRequest> read_disk_move_all(Json body) {
    DiskMoveAllRequest request;
    if (body.is_object()) {
        request.directories = GODWIT_TRY(read_directories(body.value("to", Json())));
        body.erase("to");
    }
    JsonObject object = GODWIT_TRY(JsonObject::of(body));
    request.machine = GODWIT_TRY(object.text("machine", machine_name_bytes_max)).value_or("");
    if (!request.machine.empty()) {
        GODWIT_TRY(check_machine_name(request.machine).with_context("request: /machine"));
    }
    const std::optional<std::uint64_t> concurrency =
        GODWIT_TRY(object.number("concurrency", {.min = 1, .max = block::plan_at_once_max}));
    request.wish = {.gamma = GODWIT_TRY(object.fraction("gamma")).value_or(0.5),
                    .limit_bytes_per_second =
                        GODWIT_TRY(object.number("limit_bytes_per_second", {})).value_or(0),
                    .concurrency = static_cast<std::uint32_t>(concurrency.value_or(0)),
                    .unsafe = GODWIT_TRY(object.flag("unsafe", false))};
    request.dry_run = GODWIT_TRY(object.flag("dry_run", false));
    request.keep_going = GODWIT_TRY(object.flag("keep_going", false));
    GODWIT_TRY(object.finish());
    return request;
}

} // namespace godwit::control
