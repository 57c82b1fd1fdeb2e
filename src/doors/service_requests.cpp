/// What is asked at the control socket of an export (docs/formats/blk-control.md).

#include "base/version.h"
#include "doors/service.h"

#include <unistd.h>

namespace godwit::doors {

namespace {

using Json = nlohmann::json;

} // namespace

void Service::handle(const sys::ControlServer::Request& request) {
    const auto answer = [&](const Result<Json>& result) {
        if (result.has_value()) {
            request.reply.result(*result);
        } else {
            request.reply.error(result.error());
        }
    };
    const auto answer_status = [&](const Status& status) {
        answer(status.has_value() ? Result<Json>(Json::object()) : status.error());
    };
    const std::string& method = request.method;
    if (method == "status") {
        answer(status_json());
    } else if (method == "disks") {
        answer(Json{{"disks", Json::array({Json::parse(disk_->to_json(), nullptr, false)})},
                    {"metrics", Json::parse(disk_->metrics_json(), nullptr, false)}});
    } else if (method == "disk_move") {
        answer(start_move(request.params));
    } else if (method == "cancel_disk_move") {
        answer_status(disk_->cancel_move());
    } else if (method == "exchange") {
        const Status started = start_exchange(request);
        if (!started.has_value()) {
            answer(started.error());
        }
    } else if (method == "subscribe") {
        if (control_) {
            control_->subscribe(request.reply.connection());
        }
        answer_status(ok());
    } else {
        answer(Error(ErrorCode::unsupported, "there is no method '" + method.substr(0, 40) + "'"));
    }
}

Json Service::status_json() const {
    const auto uptime =
        std::chrono::duration_cast<std::chrono::seconds>(clock_.now() - started_at_);
    return {{"name", export_name(options_)},
            {"state",
             exchanging_ ? "exchanging"
             : ending_   ? "ending"
                         : "serving"},
            {"pid", ::getpid()},
            {"version", version()},
            {"build_id", build_id()},
            {"program", own_program_},
            {"uptime_s", uptime.count()},
            {"image", disk_->path()},
            {"vhost_user_blk", options_.vhost_socket},
            {"nbd", nbd_uri()}};
}

Result<Json> Service::start_move(const Json& params) {
    if (ending_) {
        return Error(ErrorCode::busy, "the export is about to end");
    }
    if (exchanging_) {
        return Error(ErrorCode::busy, "the export's server is being exchanged: ask its successor");
    }
    const block::DiskMoveRequest request = GODWIT_TRY(block::parse_disk_move_request(
        params.dump(-1, ' ', false, Json::error_handler_t::replace)));
    const std::uint64_t id =
        GODWIT_TRY(disk_->start_move(request, [this] { loop_->post([this] { move_ended(); }); }));
    control_->broadcast({{"event", "disk_move"},
                         {"disk", exported_disk_name},
                         {"state", "started"},
                         {"destination", request.destination}});
    return Json{{"id", id}};
}

} // namespace godwit::doors
