/// An exported disk that moves while its users use it, and what is told of it.

#include "base/log.h"
#include "base/scope_guard.h"
#include "block/move/disk_destination.h"
#include "block/move/scheme_choice.h"
#include "doors/exported_disk.h"

#include <nlohmann/json.hpp>

namespace godwit::doors {

namespace {

using Json = nlohmann::json;

Json json_of(const RequestTimes::Kind& kind) {
    return {{"seen", kind.seen},
            {"timed", kind.timed},
            {"timed_us", kind.microseconds},
            {"below_us", kind.below}};
}

std::string text_of(const Json& document) {
    return document.dump(-1, ' ', false, Json::error_handler_t::replace);
}

} // namespace

Result<std::uint64_t> ExportedDisk::start_move(const block::DiskMoveRequest& request,
                                               std::function<void()> ended) {
    GODWIT_TRY(block::validate(request));
    if (!request.disk.empty() && request.disk != exported_disk_name) {
        return Error(ErrorCode::not_found,
                     "the export has no disk '" + request.disk.substr(0, 40) + "', only " +
                         std::string(exported_disk_name));
    }
    if (move_ != nullptr) {
        return Error(ErrorCode::conflict,
                     "the disk is being moved to '" + move_->destination_path() +
                         "' already: wait for its end or cancel it");
    }
    if (options_.read_only) {
        return Error(ErrorCode::unsupported,
                     "the image is served for reading only, and such a one is not moved: copy it");
    }
    GODWIT_TRY(note_.check());
    const std::string name(exported_disk_name);
    const std::vector<block::OwnImage> own{{.name = name, .image = &image_}};
    block::BlockGeometry now;
    loop().run_and_wait([&] { now = disk_->geometry(); });
    block::DiskDestination destination = GODWIT_TRY(block::DiskDestination::open(
        {.path = request.destination,
         .bytes = now.bytes,
         .logical_block_bytes = now.logical_block_bytes,
         .direct = options_.direct,
         .own = own,
         .existing = request.must_make ? block::Existing::nothing : block::Existing::anything}));
    block::DiskMove::Args args{
        .name = name,
        .source = place_.path,
        .disk = *disk_,
        .loop = loop(),
        .clock = alarms_,
        .hooks = {.note = [this](const block::ImagePlace& there) { return note_.write(there); },
                  .ended = [ended = std::move(ended)](std::string_view) { ended(); }},
        .request = request,
        .source_wear = block::wear_weight_of(image_)};
    Result<std::unique_ptr<block::DiskMove>> started(nullptr);
    loop().run_and_wait([&] { started = block::DiskMove::start(std::move(args), destination); });
    if (!started.has_value()) {
        destination.remove();
        return std::move(started.error());
    }
    move_ = std::move(*started);
    log::info(
        "disk_move_started",
        {{"from", place_.path}, {"destination", request.destination}, {"scheme", request.scheme}});
    return move_->state().id;
}

Status ExportedDisk::cancel_move() {
    if (move_ == nullptr) {
        return Error(ErrorCode::not_found, "the disk is not being moved");
    }
    Status cancelled;
    loop().run_and_wait([&] { cancelled = move_->cancel(); });
    return cancelled;
}

ExportedDisk::Moving ExportedDisk::moving() const noexcept {
    return move_ == nullptr ? Moving::no : move_->stranded() ? Moving::stranded : Moving::yes;
}

bool ExportedDisk::settle_move() {
    if (move_ == nullptr || !move_->over()) {
        return false;
    }
    const block::DiskMoveState state = move_->state();
    last_move_ = block::to_json(state);
    block::DiskDestination destination = move_->take_destination();
    if (state.report->outcome == block::MoveOutcome::moved) {
        place_ = move_->place();
        image_ = std::move(destination).keep(); // Closes the old image, and with it its lock.
    } else {
        destination.remove();
    }
    log::info("disk_move_ended", {{"report", std::string_view(last_move_)}});
    loop().run_and_wait([this] { move_.reset(); });
    return true;
}

std::string ExportedDisk::to_json() {
    block::BlockGeometry now;
    loop().run_and_wait([&] { now = disk_->geometry(); });
    Json disk{{"disk", exported_disk_name},
              {"path", place_.path},
              {"read_only", now.read_only},
              {"direct", place_.direct},
              {"bytes", now.bytes},
              {"move", nullptr},
              {"last_move", nullptr}};
    if (move_ != nullptr) {
        disk["move"] = Json::parse(block::to_json(move_->state()), nullptr, false);
    }
    if (!last_move_.empty()) {
        disk["last_move"] = Json::parse(last_move_, nullptr, false);
    }
    return text_of(disk);
}

std::string ExportedDisk::metrics_json() {
    block::GuestTraffic traffic;
    RequestTimes times;
    std::uint32_t in_flight = 0;
    loop().run_and_wait([&] {
        traffic = disk_->traffic();
        times = times_;
        in_flight = disk_->in_flight();
    });
    return text_of({{"reads", traffic.reads},
                    {"read_bytes", traffic.read_bytes},
                    {"changes", traffic.changes},
                    {"changed_bytes", traffic.changed_bytes},
                    {"flushes", traffic.flushes},
                    {"in_flight", in_flight},
                    {"timed_one_of", DiskView::sampled_one_of},
                    {"times",
                     {{"reads", json_of(times.reads)},
                      {"changes", json_of(times.changes)},
                      {"flushes", json_of(times.flushes)}}}});
}

} // namespace godwit::doors
