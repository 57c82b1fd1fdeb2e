#include "control/disk_move_run.h"

#include "base/log.h"
#include "control/supervisor.h"
#include "sys/fd.h"

#include <nlohmann/json.hpp>

namespace godwit::control {

namespace {

using std::chrono::milliseconds;

/// For making the destination: its file system may have to write first.
constexpr milliseconds start_time_max{60'000};
constexpr milliseconds look_time_max{5'000};
constexpr milliseconds cancel_time_max{10'000};
constexpr milliseconds look_distance{500};
constexpr std::size_t document_bytes_max = 64 * kib;

/// What the answer of "disks" says of one disk under `member`; null if nothing.
Json member_of_disk(const Json& answer, const std::string& disk, const char* member) {
    const Json disks = answer.is_object() ? answer.value("disks", Json()) : Json();
    for (const Json& each : disks.is_array() ? disks : Json::array()) {
        if (text_member(each, "disk") == disk && each.contains(member)) {
            return each[member];
        }
    }
    return {};
}

} // namespace

DiskMoveRun::DiskMoveRun(Supervisor& supervisor,
                         std::string machine,
                         std::string disk,
                         const DiskWork& work,
                         Reply<Json> end)
    : supervisor_(supervisor), machine_(std::move(machine)), disk_(std::move(disk)), work_(work),
      last_(std::make_unique<Json>(Json::object())),
      end_(std::make_unique<Reply<Json>>(std::move(end))) {}

DiskMoveRun::~DiskMoveRun() = default;

void DiskMoveRun::start(std::uint64_t operation, const Json& params) {
    operation_ = operation;
    *last_ = params;
    safe_ = params.value("unsafe", Json()) != true;
    supervisor_.parts_.operations.set_phase(operation_, "starting");
    supervisor_.find(machine_)->owner->call(
        work_.method,
        params,
        start_time_max,
        Reply<Json>([weak = weak_from_this()](const Result<Json>& answer) {
            const auto self = weak.lock();
            if (self == nullptr || self->over_) {
                return;
            }
            if (!answer.has_value()) {
                self->refused(answer.error());
                return;
            }
            self->id_ = number_member(*answer, "id");
            self->watch();
            self->look();
        }));
}

void DiskMoveRun::follow(std::uint64_t operation, const Json& move) {
    operation_ = operation;
    id_ = number_member(move, "id");
    told(move);
    watch();
}

void DiskMoveRun::watch() {
    auto timer =
        supervisor_.parts_.loop.schedule(look_distance, look_distance, [weak = weak_from_this()] {
            if (const auto self = weak.lock(); self != nullptr) {
                self->look();
            }
        });
    if (timer.has_value()) {
        timer_ = std::move(*timer);
    } else {
        log::error("disk_move_timer_missing", {{"reason", timer.error().to_string()}});
    }
}

Status DiskMoveRun::cancel() {
    const MachineEntry* const entry = supervisor_.find(machine_);
    if (over_ || entry == nullptr || entry->owner == nullptr) {
        return Error(ErrorCode::conflict, "what was done to " + disk_ + " is over");
    }
    // Too late is no error: then it ends as moved, which is told.
    entry->owner->call("cancel_disk_move", {{"disk", disk_}}, cancel_time_max, Reply<Json>());
    return ok();
}

void DiskMoveRun::look() {
    const MachineEntry* const entry = supervisor_.find(machine_);
    if (over_ || asking_ || id_ == 0 || entry == nullptr || entry->owner == nullptr) {
        return;
    }
    asking_ = true;
    entry->owner->call("disks",
                       {{"disk", disk_}},
                       look_time_max,
                       Reply<Json>([weak = weak_from_this()](const Result<Json>& answer) {
                           if (const auto self = weak.lock(); self != nullptr) {
                               self->asking_ = false;
                               self->looked(answer);
                           }
                       }));
}

/// A VMM that does not answer is asked again; its end is noticed otherwise.
void DiskMoveRun::looked(const Result<Json>& answer) {
    if (over_ || !answer.has_value()) {
        return;
    }
    const Json move = member_of_disk(*answer, disk_, work_.member);
    const Json last = member_of_disk(*answer, disk_, work_.last);
    if (number_member(move, "id") == id_) {
        told(move);
    } else if (number_member(last, "id") == id_) {
        finish(last);
    } else {
        refused(
            Error(ErrorCode::internal,
                  "the VMM knows nothing of it any more; see 'godwit disk list " + machine_ + "'"));
    }
}

void DiskMoveRun::told(const Json& move) {
    *last_ = move;
    safe_ = move.value("safe", Json()) != false;
    supervisor_.parts_.operations.set_phase(operation_, text_member(move, "phase"));
    supervisor_.parts_.operations.set_progress(operation_, move);
}

namespace {

/// The disk as the machine's document says it; null if nobody can tell.
Json disk_in_document(const std::string& path, const std::string& disk) {
    const Result<std::string> text = sys::read_file(path, document_bytes_max);
    const Result<Json> document = text.has_value() ? parse_json(*text) : Result<Json>(text.error());
    if (!document.has_value() || !document->is_object()) {
        return {};
    }
    std::size_t index = 0;
    for (const Json& each : document->value("disks", Json::array())) {
        if ("disk" + std::to_string(index++) == disk) {
            return each;
        }
    }
    return {};
}

} // namespace

void DiskMoveRun::owner_gone() {
    if (over_) {
        return;
    }
    Json report = *last_;
    report["operation"] = work_.operation;
    report["disk"] = disk_;
    &work_ == &disk_merge_work ? merged_into(report) : lies_at(report);
    if (text_member(report, "outcome") != work_.done) {
        report["outcome"] = "failed";
        report["reason"] = "the VMM ended meanwhile";
        report["error_code"] = name_of(ErrorCode::peer_closed);
    }
    finish(std::move(report));
}

/// Of a move: the document names the side that counts.
void DiskMoveRun::lies_at(Json& report) const {
    const std::string destination = text_member(*last_, "destination");
    const Json disk = disk_in_document(supervisor_.parts_.run.spec_file(machine_), disk_);
    const bool there = !destination.empty() && text_member(disk, "path") == destination;
    report["outcome"] = there ? "moved" : "failed";
    report["complete"] = there ? "destination" : safe_ ? "source" : "neither";
}

/// Of a merge: the document names every delta that is not empty.
void DiskMoveRun::merged_into(Json& report) const {
    const Json disk = disk_in_document(supervisor_.parts_.run.spec_file(machine_), disk_);
    const bool merged = disk.is_object() && disk.value("deltas", Json::array()).empty();
    report["outcome"] = merged ? "merged" : "failed";
}

Error DiskMoveRun::failure(const Json& report) const {
    const ErrorCode code = error_code_named(text_member(report, "error_code"));
    const std::string who = disk_ + " of '" + machine_ + "' was not ";
    const std::string reason = text_member(report, "reason");
    if (&work_ == &disk_merge_work) {
        return {code,
                who + "merged: " + reason +
                    "; its deltas stay, merge again with 'godwit disk merge " + machine_ + ":" +
                    disk_ + "'"};
    }
    if (&work_ == &disk_estimate_work) {
        return {code, who + "measured: " + reason};
    }
    const std::string complete = text_member(report, "complete");
    return {code,
            who + "moved: " + reason + "; complete is " +
                (complete == "source" ? "'" + text_member(report, "source") + "'"
                                      : complete + " of both sides")};
}

void DiskMoveRun::finish(Json report) {
    report["machine"] = machine_;
    report["finished"] = time_text(supervisor_.parts_.clock.unix_nanoseconds());
    const std::string outcome = text_member(report, "outcome");
    if (&work_ != &disk_estimate_work) { // Which leaves everything as it was.
        supervisor_.disk_work_ended(machine_, report);
    }
    const std::uint64_t operation = operation_;
    Operations& operations = supervisor_.parts_.operations;
    leave();
    if (outcome == work_.done) {
        operations.succeed(operation, report);
        (*end_)(std::move(report));
        return;
    }
    const Error error = failure(report);
    operations.fail(operation, error, report);
    (*end_)(error);
}

void DiskMoveRun::refused(const Error& error) {
    const std::uint64_t operation = operation_;
    Operations& operations = supervisor_.parts_.operations;
    leave();
    operations.fail(operation, error, Json());
    (*end_)(error);
}

void DiskMoveRun::leave() {
    over_ = true;
    timer_.reset();
    supervisor_.disk_moves_.erase({machine_, disk_}); // Whoever called us keeps this alive.
}

} // namespace godwit::control
