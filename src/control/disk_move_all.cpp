#include "control/disk_move_all.h"

#include "base/log.h"
#include "control/disk_move_run.h"
#include "control/supervisor.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace godwit::control {

namespace {

constexpr std::chrono::milliseconds list_time_max{3'000};
constexpr std::chrono::milliseconds look_distance{500};

} // namespace

DiskMoveAll::DiskMoveAll(Supervisor& supervisor, DiskMoveAllRequest request, DiskPool pool)
    : supervisor_(supervisor), request_(std::move(request)), pool_(std::move(pool)) {}

DiskMoveAll::~DiskMoveAll() = default;

void DiskMoveAll::start(std::uint64_t operation) {
    operation_ = operation;
    started_at_ = supervisor_.parts_.clock.now();
    supervisor_.parts_.operations.set_phase(operation_, "listing");
    std::vector<std::string> machines;
    for (const auto& [name, entry] : supervisor_.machines_) {
        if (request_.machine.empty() || request_.machine == name) {
            machines.push_back(name);
        }
    }
    unanswered_ = machines.size() + 1; // So that the last answer cannot come before all are asked.
    for (const std::string& machine : machines) {
        list(machine);
    }
    listed("", Json());
}

void DiskMoveAll::list(const std::string& machine) {
    const Result<MachineEntry*> entry = supervisor_.find_idle(machine);
    if (!entry.has_value()) {
        listed(machine, entry.error());
        return;
    }
    (*entry)->owner->call(
        "disks",
        Json::object(),
        list_time_max,
        Reply<Json>([weak = weak_from_this(), machine](const Result<Json>& answer) {
            if (const auto self = weak.lock(); self != nullptr) {
                self->listed(machine, answer);
            }
        }));
}

void DiskMoveAll::listed(const std::string& machine, const Result<Json>& answer) {
    if (!answer.has_value()) {
        FleetDisk unknown;
        unknown.machine = machine;
        unknown.disk = "*";
        refuse(unknown, answer.error().to_string());
        fleet_.push_back(std::move(unknown));
    } else if (answer->is_object()) {
        const Json disks = answer->value("disks", Json());
        for (const Json& disk : disks.is_array() ? disks : Json::array()) {
            add(machine, disk);
        }
    }
    if (--unanswered_ == 0) {
        later(&DiskMoveAll::place_all);
    }
}

void DiskMoveAll::add(const std::string& machine, const Json& disk) {
    FleetDisk made;
    made.machine = machine;
    made.disk = text_member(disk, "disk");
    made.source = text_member(disk, "path");
    made.bytes = number_member(disk, "bytes");
    if (disk.is_object() && disk.value("read_only", Json()) == true) {
        made.outcome = DiskOutcome::left;
        made.reason = "it is attached for reading only";
    } else if (pool_.holds(made.source)) {
        made.outcome = DiskOutcome::left;
        made.reason = "it lies there already";
    } else if (supervisor_.disk_moves_.contains({machine, made.disk})) {
        refuse(made, "it is being moved or merged already");
    } else if (made.bytes == 0) {
        refuse(made, "its VMM does not say how large it is");
    }
    fleet_.push_back(std::move(made));
}

void DiskMoveAll::refuse(FleetDisk& disk, const std::string& why) {
    disk.outcome = DiskOutcome::refused;
    disk.reason = why;
}

/// Nothing has begun yet, and something speaks against some: the whole is not begun.
bool DiskMoveAll::must_stop() const {
    return !request_.keep_going && count(fleet_, DiskOutcome::refused) > 0;
}

/// The largest first: they are the hardest to find room for.
void DiskMoveAll::place_all() {
    if (count(fleet_, DiskOutcome::waiting) > block::plan_disks_max) {
        fail(Error(ErrorCode::resource_exhausted,
                   "at most " + std::to_string(block::plan_disks_max) +
                       " disks are moved together: name machines"));
        return;
    }
    std::ranges::stable_sort(fleet_, std::greater{}, &FleetDisk::bytes);
    for (FleetDisk& disk : fleet_) {
        if (disk.outcome != DiskOutcome::waiting) {
            continue;
        }
        const Result<DiskPool::Place> place = pool_.take(disk.machine, disk.disk, disk.bytes);
        const Result<std::string> device = device_of(disk.source);
        if (!place.has_value() || !device.has_value()) {
            refuse(disk,
                   place.has_value() ? device.error().to_string() : place.error().to_string());
            continue;
        }
        disk.destination = place->path;
        disk.destination_device = place->device;
        disk.source_device = *device;
    }
    std::ranges::stable_sort(
        fleet_, {}, [](const FleetDisk& disk) { return std::tie(disk.machine, disk.disk); });
    if (cancelled_ || must_stop()) {
        finish();
        return;
    }
    step_ = Step::measuring;
    supervisor_.parts_.operations.set_phase(operation_, "measuring");
    watch();
    measure_next();
}

bool DiskMoveAll::measures_at(const FleetDisk& disk) const {
    return std::ranges::any_of(measuring_, [&](std::size_t index) {
        const FleetDisk& other = fleet_[index];
        const auto uses = [&](const std::string& device) {
            return other.source_device == device || other.destination_device == device;
        };
        return other.machine == disk.machine || uses(disk.source_device) ||
               uses(disk.destination_device);
    });
}

/// One at a time at each device: two would measure each other.
void DiskMoveAll::measure_next() {
    if (step_ != Step::measuring) {
        return;
    }
    bool open = false;
    for (std::size_t i = 0; i < fleet_.size(); ++i) {
        FleetDisk& disk = fleet_[i];
        if (disk.outcome != DiskOutcome::waiting || disk.estimated ||
            std::ranges::find(measuring_, i) != measuring_.end()) {
            continue;
        }
        open = true;
        if (!cancelled_ && !measures_at(disk)) {
            measure(i);
        }
    }
    if (measuring_.empty() && (!open || cancelled_)) {
        plan();
    }
}

void DiskMoveAll::measure(std::size_t index) {
    FleetDisk& disk = fleet_[index];
    const Json params{{"destination", disk.destination},
                      {"scheme", "auto"},
                      {"must_make", true},
                      {"limit_bytes_per_second", request_.wish.limit_bytes_per_second},
                      {"gamma", request_.wish.gamma}};
    measuring_.push_back(index);
    have_done(disk,
              params,
              {.work = disk_estimate_work, .index = index, .ended = &DiskMoveAll::measured});
}

/// By its VMM, as an operation of its own.
void DiskMoveAll::have_done(FleetDisk& disk, const Json& params, const Errand& errand) {
    const Result<std::uint64_t> begun = supervisor_.begin_disk_work(
        disk.machine,
        disk.disk,
        params,
        errand.work,
        Reply<Json>([weak = weak_from_this(), index = errand.index, ended = errand.ended](
                        const Result<Json>& report) {
            if (const auto self = weak.lock(); self != nullptr) {
                (self.get()->*ended)(index, report);
            }
        }));
    disk.operation = begun.value_or(0); // If it could not begin, that has been told already.
}

void DiskMoveAll::measured(std::size_t index, const Result<Json>& report) {
    std::erase(measuring_, index);
    FleetDisk& disk = fleet_[index];
    const Status taken = report.has_value() ? take_estimate(disk, *report) : Status(report.error());
    if (!taken.has_value() && !cancelled_) {
        refuse(disk, taken.error().to_string());
    }
    later(&DiskMoveAll::measure_next);
}

void DiskMoveAll::plan() {
    if (cancelled_ || must_stop()) {
        finish();
        return;
    }
    situation_ = situation_of(fleet_, request_.wish);
    Result<block::MovePlan> planned = block::plan_moves(situation_->situation);
    if (!planned.has_value()) {
        fail(planned.error());
        return;
    }
    plan_ = std::move(*planned);
    for (std::size_t i = 0; i < situation_->disks.size(); ++i) {
        FleetDisk& disk = fleet_[situation_->disks[i]];
        disk.scheme = plan_->schemes[i];
        disk.forecast = plan_->forecast.disks[i];
    }
    if (request_.dry_run) {
        finish();
        return;
    }
    queue_.emplace(plan_->order, block::places_of(situation_->situation));
    step_ = Step::moving;
    moves_began_at_ = supervisor_.parts_.clock.now();
    supervisor_.parts_.operations.set_phase(operation_, "moving");
    pump();
}

void DiskMoveAll::pump() {
    if (step_ != Step::moving) {
        return;
    }
    while (const std::optional<std::size_t> next = queue_->next()) {
        begin(*next);
    }
    if (queue_->idle()) {
        finish();
        return;
    }
    look();
}

/// `index` as in the plan.
void DiskMoveAll::begin(std::size_t index) {
    FleetDisk& disk = fleet_[situation_->disks[index]];
    const Json params{
        {"destination", disk.destination},
        {"scheme", block::name_of(*disk.scheme)},
        {"unsafe", *disk.scheme == block::Scheme::lr},
        {"must_make", true},
        {"reads_from_destination",
         disk.destination_speed.read_latency_seconds < disk.source_speed.read_latency_seconds},
        {"limit_bytes_per_second", request_.wish.limit_bytes_per_second},
        {"gamma", request_.wish.gamma}};
    disk.outcome = DiskOutcome::under_way;
    disk.phase = "starting";
    have_done(disk, params, {.work = disk_move_work, .index = index, .ended = &DiskMoveAll::ended});
}

void DiskMoveAll::ended(std::size_t index, const Result<Json>& report) {
    FleetDisk& disk = fleet_[situation_->disks[index]];
    if (report.has_value()) {
        disk.outcome = DiskOutcome::moved;
        disk.moving = json_text(*report);
    } else {
        disk.outcome = report.error().code() == ErrorCode::cancelled ? DiskOutcome::cancelled
                                                                     : DiskOutcome::failed;
        disk.reason = report.error().to_string();
        disk.moving.clear();
    }
    supervisor_.parts_.events.append(
        "disk_move_all",
        disk.machine,
        {{"operation", operation_}, {"disk", disk.disk}, {"outcome", name_of(disk.outcome)}});
    queue_->ended(index);
    later(&DiskMoveAll::pump); // The run that tells us this is not through with it yet.
}

void DiskMoveAll::later(void (DiskMoveAll::*step)()) {
    supervisor_.parts_.loop.post([weak = weak_from_this(), step] {
        if (const auto self = weak.lock(); self != nullptr) {
            (self.get()->*step)();
        }
    });
}

void DiskMoveAll::watch() {
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

/// Tells how far all are.
void DiskMoveAll::look() {
    if (step_ == Step::over) {
        return;
    }
    for (FleetDisk& disk : fleet_) {
        const auto run = supervisor_.disk_moves_.find({disk.machine, disk.disk});
        if (disk.outcome == DiskOutcome::under_way && run != supervisor_.disk_moves_.end()) {
            disk.moving = json_text(run->second->last());
            disk.phase = text_member(run->second->last(), "phase", disk.phase);
        }
    }
    Json progress = progress_of(fleet_);
    progress["measured"] = std::ranges::count(fleet_, true, &FleetDisk::estimated);
    supervisor_.parts_.operations.set_progress(operation_, progress);
}

Status DiskMoveAll::cancel() {
    cancelled_ = true;
    if (queue_.has_value()) {
        queue_->drop_rest();
    }
    cancel_under_way();
    later(step_ == Step::moving ? &DiskMoveAll::pump : &DiskMoveAll::measure_next);
    return ok();
}

void DiskMoveAll::cancel_under_way() {
    for (std::size_t i = 0; i < fleet_.size(); ++i) {
        const FleetDisk& disk = fleet_[i];
        const bool measures = std::ranges::find(measuring_, i) != measuring_.end();
        if (!measures && disk.outcome != DiskOutcome::under_way) {
            continue;
        }
        const Status told = supervisor_.parts_.operations.cancel(disk.operation);
        if (!told.has_value()) { // Its end is near; that it has moved is told then.
            log::info("disk_move_not_cancelled",
                      {{"machine", disk.machine},
                       {"disk", disk.disk},
                       {"reason", told.error().to_string()}});
        }
    }
}

Json DiskMoveAll::make_report() {
    for (FleetDisk& disk : fleet_) {
        if (disk.outcome == DiskOutcome::waiting && !(request_.dry_run && plan_.has_value())) {
            disk.outcome = DiskOutcome::not_tried;
        }
    }
    const sys::Moment now = supervisor_.parts_.clock.now();
    Json report = json_of(fleet_);
    report["operation"] = "disk-move-all";
    report["dry_run"] = request_.dry_run;
    report["cancelled"] = cancelled_;
    report["directories"] = request_.directories;
    report["wanted_bytes"] = pool_.wanted_bytes();
    report["free_bytes"] = pool_.free_bytes();
    report["plan"] = plan_.has_value() ? json_of(*plan_, *situation_) : Json();
    report["total_us"] = sys::microseconds_between(started_at_, now);
    report["moves_us"] =
        queue_.has_value() ? Json(sys::microseconds_between(moves_began_at_, now)) : Json();
    report["finished"] = time_text(supervisor_.parts_.clock.unix_nanoseconds());
    report["outcome"] = outcome();
    return report;
}

std::string_view DiskMoveAll::outcome() const {
    const std::size_t moved = count(fleet_, DiskOutcome::moved);
    if (request_.dry_run && plan_.has_value()) {
        return "planned";
    }
    if (!request_.dry_run && !cancelled_ &&
        moved + count(fleet_, DiskOutcome::left) == fleet_.size()) {
        return "done";
    }
    return moved > 0 ? "partial" : "nothing_moved";
}

namespace {

/// For people: what stands in the way.
std::string text_of(const std::vector<FleetDisk>& fleet) {
    std::string trouble;
    for (const FleetDisk& disk : fleet) {
        const bool bad = disk.outcome == DiskOutcome::failed ||
                         disk.outcome == DiskOutcome::refused ||
                         disk.outcome == DiskOutcome::cancelled;
        if (bad && trouble.size() < 800) {
            trouble += "; " + disk.machine + ":" + disk.disk + " (" +
                       std::string(name_of(disk.outcome)) + "): " + disk.reason.substr(0, 300);
        }
    }
    return std::to_string(count(fleet, DiskOutcome::moved)) + " disks were moved, " +
           std::to_string(count(fleet, DiskOutcome::not_tried)) + " were not begun" + trouble;
}

} // namespace

void DiskMoveAll::finish() {
    const Json report = make_report();
    const std::shared_ptr<DiskMoveAll> keep = leave();
    if (outcome() == "done" || outcome() == "planned") {
        supervisor_.parts_.operations.succeed(operation_, report);
        return;
    }
    const Error error(cancelled_ ? ErrorCode::cancelled : ErrorCode::conflict,
                      (cancelled_ ? "cancelled: " : "") + text_of(fleet_));
    supervisor_.parts_.operations.fail(operation_, error, report);
}

void DiskMoveAll::fail(const Error& error) {
    const std::shared_ptr<DiskMoveAll> keep = leave();
    supervisor_.parts_.operations.fail(operation_, error, Json());
}

/// Makes room for the next one; what it gives keeps this alive.
std::shared_ptr<DiskMoveAll> DiskMoveAll::leave() {
    step_ = Step::over;
    timer_.reset();
    return std::exchange(supervisor_.disk_move_all_, nullptr);
}

} // namespace godwit::control
