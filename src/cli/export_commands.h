#pragma once

/// What `godwit disk` does with a disk that godwit-blk exports: the same as with one of a machine,
/// without godwitd. One thread.

#include "cli/session.h"

#include <string>

namespace godwit::cli {

/// `request`: as godwitd takes it for a machine's disk.
[[nodiscard]] ExitCode
move_export(const Session& session, const std::string& name, const control::Json& request);
[[nodiscard]] ExitCode cancel_export_move(const Session& session, const std::string& name);
[[nodiscard]] ExitCode list_export(const Session& session, const std::string& name);
/// `request`: as the server takes it (docs/formats/blk-control.md).
[[nodiscard]] ExitCode
exchange_export(const Session& session, const std::string& name, const control::Json& request);

} // namespace godwit::cli
