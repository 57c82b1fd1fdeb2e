#pragma once

/// How disks, and what is done to them, are told to people. Any thread.

#include "control/json_text.h"

#include <string>

namespace godwit::cli {

/// What is added to the progress line of an operation that moves a disk; empty for others.
[[nodiscard]] std::string disk_move_progress(const control::Json& operation);
/// The report of a move.
[[nodiscard]] std::string disk_move_text(const control::Json& report);
/// What came of a merge, or of a snapshot.
[[nodiscard]] std::string disk_merge_text(const control::Json& report);
[[nodiscard]] std::string disk_snapshot_text(const control::Json& report);
/// The disks of a machine as godwitd lists them.
[[nodiscard]] std::string disks_text(const control::Json& answer);

/// What came of an exchange of an export's server.
[[nodiscard]] std::string export_exchange_text(const control::Json& report);
/// What an exported disk was asked for so far, and how long it took.
[[nodiscard]] std::string export_metrics_text(const control::Json& metrics);

} // namespace godwit::cli
