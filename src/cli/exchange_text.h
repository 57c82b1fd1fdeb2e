#pragma once

/// Plans, reports and the history of exchanges as people read them. Pure functions over what
/// godwitd says (docs/reports.md), whatever that is. Any thread.

#include "control/json_text.h"

#include <string>
#include <vector>

namespace godwit::cli {

/// The report of one machine's exchange that was done.
[[nodiscard]] std::string exchange_text(const control::Json& report);
/// What an exchange would do.
[[nodiscard]] std::string plan_text(const control::Json& plan);
/// The total report of all machines.
[[nodiscard]] std::string total_text(const control::Json& report);
/// Past exchanges, oldest first.
[[nodiscard]] std::string history_text(const control::Json& reports);

/// The machines of an exchange under way, by phase: who is under way or has failed, then as many
/// others as fit into `rows_max`, and a line that counts all. `progress` as in an operation.
[[nodiscard]] std::vector<std::string> progress_lines(const control::Json& progress,
                                                      std::size_t rows_max);

} // namespace godwit::cli
