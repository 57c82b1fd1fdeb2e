/// Freezing the machine's disks and merging their deltas again. Like moves (disk_moves.cpp) they
/// take no job's place.

#include "vmm/service.h"

namespace godwit::vmm {

namespace {

using nlohmann::json;

constexpr std::size_t path_bytes_max = 4095; // PATH_MAX

Result<std::string> text_of(const json& params, const char* key) {
    if (!params.contains(key) || !params[key].is_string() ||
        params[key].get_ref<const std::string&>().size() > path_bytes_max) {
        return Error(ErrorCode::invalid_argument,
                     std::string("the parameter \"") + key + "\" must be a text");
    }
    return params[key].get<std::string>();
}

Result<machine::DiskFreezeRequest> read_request(const json& params) {
    machine::DiskFreezeRequest request{.disk = GODWIT_TRY(text_of(params, "disk")),
                                       .delta = GODWIT_TRY(text_of(params, "delta"))};
    const json bytes = params.value("bytes", json(0U));
    if (!bytes.is_number_unsigned()) {
        return Error(ErrorCode::invalid_argument, "\"bytes\" must be a number not below 0");
    }
    request.bytes = bytes.get<std::uint64_t>();
    return request;
}

json json_of(const machine::DiskFreezeReport& report) {
    return {{"operation", "disk-snapshot"},
            {"disk", report.disk},
            {"base", report.base},
            {"delta", report.delta},
            {"snapshot", report.snapshot},
            {"delta_bytes", report.delta_bytes},
            {"written_bytes", report.written_bytes},
            {"duration_us", report.duration_us},
            {"pause_us", report.pause_us}};
}

} // namespace

/// Answered when the document names the delta and the guest writes there.
void Service::freeze_disk(const ControlServer::Request& request) {
    const Status begun = begin_freeze(request);
    if (!begun.has_value()) {
        request.reply.error(begun.error());
    }
}

Status Service::begin_freeze(const ControlServer::Request& request) {
    GODWIT_TRY(check_disk_work());
    const machine::DiskFreezeRequest wish = GODWIT_TRY(read_request(request.params));
    GODWIT_TRY(document_.ensure(machine_->spec()));
    return machine_->freeze_disk(
        wish, [this, reply = request.reply](Result<machine::DiskFreezeReport> report) {
            if (!report.has_value()) {
                reply.error(report.error());
                return;
            }
            control_->broadcast({{"event", "disk_snapshot"},
                                 {"disk", report->disk},
                                 {"delta", report->delta},
                                 {"snapshot", report->snapshot}});
            reply.result(json_of(*report));
        });
}

Result<json> Service::start_disk_merge(const json& params) {
    GODWIT_TRY(check_disk_work());
    const std::string disk = GODWIT_TRY(text_of(params, "disk"));
    GODWIT_TRY(document_.ensure(machine_->spec()));
    const std::uint64_t id = GODWIT_TRY(machine_->start_disk_merge(disk));
    control_->broadcast({{"event", "disk_merge"}, {"disk", disk}, {"state", "started"}});
    return json{{"id", id}};
}

void Service::tell_pressure(std::string_view disk,
                            std::string_view delta,
                            std::string_view pressure) {
    loop_->post([this,
                 event = json{{"event", "disk_pressure"},
                              {"disk", disk},
                              {"delta", delta},
                              {"pressure", pressure}}] { control_->broadcast(event); });
}

} // namespace godwit::vmm
