#include "control/disk_fleet.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>

namespace godwit::control {

namespace {

constexpr std::size_t reason_bytes_max = 300;
constexpr std::array all_outcomes{DiskOutcome::waiting,
                                  DiskOutcome::under_way,
                                  DiskOutcome::moved,
                                  DiskOutcome::cancelled,
                                  DiskOutcome::failed,
                                  DiskOutcome::refused,
                                  DiskOutcome::left,
                                  DiskOutcome::not_tried};

Json member(const Json& object, const char* name) {
    return object.is_object() && object.contains(name) ? object[name] : Json();
}
/// Of what a VMM says: never below 0, never without an end.
double amount(const Json& object, const char* name) {
    const Json value = member(object, name);
    const double number = value.is_number() ? value.get<double>() : 0;
    return std::isfinite(number) && number > 0 ? number : 0;
}

block::DeviceSpeed read_speed(const Json& speed) {
    const double read = amount(speed, "read_us") / 1e6;
    const double write = amount(speed, "write_us") / 1e6;
    // One small request alone says nothing about how much of its time others could use.
    return {.read_bytes_per_second = amount(speed, "read_bytes_per_second"),
            .write_bytes_per_second = amount(speed, "write_bytes_per_second"),
            .read_operation_seconds = read,
            .write_operation_seconds = write,
            .read_latency_seconds = read,
            .write_latency_seconds = write,
            .wear_weight = amount(speed, "wear_weight")};
}

void keep_most(double& value, double other) {
    value = std::max(value, other);
}
void keep_least(double& value, double other) {
    value = std::min(value, other);
}

/// What is known of the devices. Of several measurements of one the best counts: whatever else used
/// it made it look slower.
class DeviceTable {
  public:
    enum class Measured : std::uint8_t { reads, reads_and_writes };

    std::size_t add(const std::string& name, const block::DeviceSpeed& speed, Measured measured) {
        const auto found = std::ranges::find(names, name);
        const auto index = static_cast<std::size_t>(found - names.begin());
        if (found == names.end()) {
            names.push_back(name);
            speeds.push_back(speed);
            writes_known_.push_back(measured == Measured::reads_and_writes);
            return index;
        }
        block::DeviceSpeed& best = speeds[index];
        keep_most(best.read_bytes_per_second, speed.read_bytes_per_second);
        keep_least(best.read_operation_seconds, speed.read_operation_seconds);
        keep_least(best.read_latency_seconds, speed.read_latency_seconds);
        keep_most(best.wear_weight, speed.wear_weight);
        if (measured == Measured::reads_and_writes) {
            add_writes(best, speed, index);
        }
        return index;
    }

    std::vector<std::string> names;
    std::vector<block::DeviceSpeed> speeds;

  private:
    /// What a source would write at is a guess, which the first measurement replaces.
    void add_writes(block::DeviceSpeed& best, const block::DeviceSpeed& speed, std::size_t index) {
        if (!writes_known_[index]) {
            best.write_bytes_per_second = speed.write_bytes_per_second;
            best.write_operation_seconds = speed.write_operation_seconds;
            best.write_latency_seconds = speed.write_latency_seconds;
            writes_known_[index] = true;
        }
        keep_most(best.write_bytes_per_second, speed.write_bytes_per_second);
        keep_least(best.write_operation_seconds, speed.write_operation_seconds);
        keep_least(best.write_latency_seconds, speed.write_latency_seconds);
    }

    std::vector<bool> writes_known_;
};

std::uint64_t microseconds(double seconds) {
    return static_cast<std::uint64_t>(std::clamp(seconds * 1e6, 0.0, 1e15));
}

} // namespace

std::string_view name_of(DiskOutcome outcome) noexcept {
    switch (outcome) {
    case DiskOutcome::waiting:
        return "waiting";
    case DiskOutcome::under_way:
        return "under_way";
    case DiskOutcome::moved:
        return "moved";
    case DiskOutcome::cancelled:
        return "cancelled";
    case DiskOutcome::failed:
        return "failed";
    case DiskOutcome::refused:
        return "refused";
    case DiskOutcome::left:
        return "left";
    case DiskOutcome::not_tried:
        break;
    }
    return "not_tried";
}

Status take_estimate(FleetDisk& disk, const Json& report) {
    const Json choice = member(report, "choice");
    const Json guest = member(choice, "guest");
    disk.source_speed = read_speed(member(choice, "source"));
    disk.destination_speed = read_speed(member(choice, "destination"));
    for (const block::DeviceSpeed& speed : {disk.source_speed, disk.destination_speed}) {
        // A source is only read: what it writes at is a guess, but there is one.
        if (speed.read_bytes_per_second <= 0 || speed.write_bytes_per_second <= 0) {
            return Error(ErrorCode::corrupt, "its VMM has not measured both devices");
        }
    }
    disk.workload = {.reads = amount(guest, "reads_per_second"),
                     .read_bytes = amount(guest, "read_bytes_per_second"),
                     .writes = amount(guest, "writes_per_second"),
                     .written_bytes = amount(guest, "written_bytes_per_second"),
                     .working_set_bytes = amount(guest, "working_set_bytes"),
                     .hot_bytes = amount(guest, "hot_bytes"),
                     .hot_share = std::min(1.0, amount(guest, "hot_share"))};
    disk.estimated = true;
    return ok();
}

FleetSituation situation_of(const std::vector<FleetDisk>& fleet, const FleetWish& wish) {
    FleetSituation made{.situation = {.devices = {},
                                      .disks = {},
                                      .gamma = wish.gamma,
                                      .limit_bytes_per_second = wish.limit_bytes_per_second,
                                      .at_once_max = wish.concurrency,
                                      .allows_lr = wish.unsafe},
                        .disks = {},
                        .devices = {}};
    DeviceTable table;
    for (std::size_t i = 0; i < fleet.size(); ++i) {
        const FleetDisk& disk = fleet[i];
        if (disk.outcome != DiskOutcome::waiting || !disk.estimated) {
            continue;
        }
        const std::size_t source =
            table.add(disk.source_device, disk.source_speed, DeviceTable::Measured::reads);
        const std::size_t destination = table.add(disk.destination_device,
                                                  disk.destination_speed,
                                                  DeviceTable::Measured::reads_and_writes);
        made.disks.push_back(i);
        made.situation.disks.push_back({.bytes = disk.bytes,
                                        .places = {.source = source, .destination = destination},
                                        .workload = disk.workload});
    }
    made.devices = std::move(table.names);
    made.situation.devices = std::move(table.speeds);
    return made;
}

std::size_t count(const std::vector<FleetDisk>& fleet, DiskOutcome outcome) noexcept {
    return static_cast<std::size_t>(std::ranges::count(fleet, outcome, &FleetDisk::outcome));
}

namespace {

Json counts_of(const std::vector<FleetDisk>& fleet) {
    Json counts = Json::object();
    for (const DiskOutcome outcome : all_outcomes) {
        counts[name_of(outcome)] = count(fleet, outcome);
    }
    return counts;
}

Json scheme_text(const FleetDisk& disk) {
    return disk.scheme.has_value() ? Json(block::name_of(*disk.scheme)) : Json();
}

/// Progress, or what remains of the report.
void add_move(Json& row, const FleetDisk& disk) {
    const Result<Json> move = disk.moving.empty() ? Result<Json>(Json()) : parse_json(disk.moving);
    if (!move.has_value() || !move->is_object()) {
        return;
    }
    for (const char* key : {"cursor_bytes",
                            "total_bytes",
                            "copy_bytes_per_second",
                            "remaining_us",
                            "duration_us",
                            "pause_us",
                            "written_bytes"}) {
        if (move->contains(key)) {
            row[key] = (*move)[key];
        }
    }
}

} // namespace

Json progress_of(const std::vector<FleetDisk>& fleet) {
    Json list = Json::array();
    for (const FleetDisk& disk : fleet) {
        Json row{{"machine", disk.machine},
                 {"disk", disk.disk},
                 {"outcome", name_of(disk.outcome)},
                 {"scheme", scheme_text(disk)}};
        if (disk.outcome == DiskOutcome::under_way) {
            row["phase"] = disk.phase;
        }
        add_move(row, disk);
        if (!disk.reason.empty()) {
            row["reason"] = disk.reason.substr(0, reason_bytes_max);
        }
        list.push_back(std::move(row));
    }
    return {{"counts", counts_of(fleet)}, {"disks", std::move(list)}};
}

Json json_of(const std::vector<FleetDisk>& fleet) {
    Json list = Json::array();
    for (const FleetDisk& disk : fleet) {
        Json row{{"machine", disk.machine},
                 {"disk", disk.disk},
                 {"source", disk.source},
                 {"destination", disk.destination.empty() ? Json() : Json(disk.destination)},
                 {"bytes", disk.bytes},
                 {"outcome", name_of(disk.outcome)},
                 {"reason", disk.reason.substr(0, reason_bytes_max)},
                 {"scheme", scheme_text(disk)},
                 {"forecast", nullptr}};
        if (disk.scheme.has_value()) {
            row["source_device"] = disk.source_device;
            row["destination_device"] = disk.destination_device;
            const block::MoveForecast& forecast = disk.forecast;
            row["forecast"] = {{"begins_us", microseconds(forecast.begins_seconds)},
                               {"duration_us", microseconds(forecast.bill.seconds)},
                               {"pause_us", microseconds(forecast.pause_seconds)},
                               {"cost", forecast.cost},
                               {"time", forecast.parts.time},
                               {"wear", forecast.parts.wear},
                               {"io", forecast.parts.io}};
        }
        add_move(row, disk);
        list.push_back(std::move(row));
    }
    return {{"counts", counts_of(fleet)}, {"disks", std::move(list)}};
}

Json json_of(const block::MovePlan& plan, const FleetSituation& situation) {
    Json devices = Json::array();
    for (std::size_t i = 0; i < situation.devices.size(); ++i) {
        const block::DeviceSpeed& speed = situation.situation.devices[i];
        const auto whole = [](double value) { return static_cast<std::uint64_t>(value); };
        devices.push_back({{"device", situation.devices[i]},
                           {"at_once", plan.order.at_once[i]},
                           {"read_bytes_per_second", whole(speed.read_bytes_per_second)},
                           {"write_bytes_per_second", whole(speed.write_bytes_per_second)},
                           {"read_us", whole(speed.read_latency_seconds * 1e6)},
                           {"write_us", whole(speed.write_latency_seconds * 1e6)},
                           {"wear_weight", speed.wear_weight}});
    }
    Json singles = Json::array();
    for (const block::MovePlan::Single& single : plan.singles) {
        singles.push_back({{"scheme", block::name_of(single.scheme)},
                           {"cost", single.forecast.cost},
                           {"duration_us", microseconds(single.forecast.seconds)}});
    }
    return {{"cost", plan.forecast.cost},
            {"duration_us", microseconds(plan.forecast.seconds)},
            {"gamma", situation.situation.gamma},
            {"devices", std::move(devices)},
            {"single_schemes", std::move(singles)}};
}

} // namespace godwit::control
