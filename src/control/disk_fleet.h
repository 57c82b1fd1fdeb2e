#pragma once

/// Many disks on their way to a pool: what is known of each, what is planned for it, and what
/// became of it; as a plan for block::plan_moves() and as JSON (docs/reports.md, "disk-move-all").
/// Values and pure functions; any thread.

#include "base/result.h"
#include "block/plan/move_plan.h"
#include "control/json_text.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace godwit::control {

enum class DiskOutcome : std::uint8_t {
    waiting,
    under_way,
    moved,
    cancelled, ///< Brought back.
    failed,
    refused,   ///< Something speaks against it, found before anything was begun.
    left,      ///< There is nothing to be done: it lies there already, or is only read.
    not_tried, ///< Not begun, because of a cancel or of others that were refused.
};
[[nodiscard]] std::string_view name_of(DiskOutcome outcome) noexcept;

struct FleetDisk {
    std::string machine;
    std::string disk;
    std::string source;
    std::uint64_t bytes = 0;
    std::string destination; ///< Empty while it has none.
    std::string source_device;
    std::string destination_device;
    DiskOutcome outcome = DiskOutcome::waiting;
    std::string reason;
    std::string phase; ///< Of what is under way.

    // As its VMM has measured it.
    bool estimated = false;
    block::Workload workload;
    block::DeviceSpeed source_speed;
    block::DeviceSpeed destination_speed;

    // As planned.
    std::optional<block::Scheme> scheme;
    block::MoveForecast forecast;

    std::uint64_t operation = 0; ///< Of its own move, or estimate.
    std::string moving;          ///< What its VMM said last, as JSON.
};

/// Reads what a VMM has found out ("choice" of its report); corrupt if it makes no sense.
[[nodiscard]] Status take_estimate(FleetDisk& disk, const Json& report);

/// The disks that are waiting, as a situation to be planned.
struct FleetSituation {
    block::PlanSituation situation;
    std::vector<std::size_t> disks;   ///< Which disk of the fleet each one is.
    std::vector<std::string> devices; ///< Names.
};
struct FleetWish {
    double gamma = 0.5;
    std::uint64_t limit_bytes_per_second = 0;
    std::uint32_t concurrency = 0; ///< Moves at one device at most; 0: what is best.
    bool unsafe = false;           ///< lr may be taken.
};
[[nodiscard]] FleetSituation situation_of(const std::vector<FleetDisk>& fleet,
                                          const FleetWish& wish);

[[nodiscard]] std::size_t count(const std::vector<FleetDisk>& fleet, DiskOutcome outcome) noexcept;
/// What is told while it goes on, and what became of it.
[[nodiscard]] Json progress_of(const std::vector<FleetDisk>& fleet);
[[nodiscard]] Json json_of(const std::vector<FleetDisk>& fleet);
[[nodiscard]] Json json_of(const block::MovePlan& plan, const FleetSituation& situation);

} // namespace godwit::control
