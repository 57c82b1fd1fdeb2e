#pragma once

/// Moves of many disks as people read them: the plan, what became of it, and how far it is. Pure
/// functions over what godwitd says (docs/reports.md, "disk-move-all"), whatever that is. Any
/// thread.

#include "control/json_text.h"

#include <string>
#include <vector>

namespace godwit::cli {

/// The report of a dry run.
[[nodiscard]] std::string disk_fleet_plan_text(const control::Json& report);
[[nodiscard]] std::string disk_fleet_text(const control::Json& report);
/// Those under way or failed, then as many others as fit into `rows_max`, and a line that counts
/// all. `progress` as in an operation.
[[nodiscard]] std::vector<std::string> disk_fleet_lines(const control::Json& progress,
                                                        std::size_t rows_max);

} // namespace godwit::cli
