#pragma once

/// Where a host keeps its sockets unless told otherwise, and directories that are nobody else's.
/// Any thread.

#include "base/result.h"

#include <string>

namespace godwit::sys {

/// GODWIT_RUN_DIR, else /run/godwit for root, else $XDG_RUNTIME_DIR/godwit, else /tmp/godwit-<uid>.
[[nodiscard]] std::string default_run_path();

/// Makes the directory with mode 0700 if it is missing; permission_denied if it belongs to somebody
/// else, is open to others or cannot be written.
[[nodiscard]] Status prepare_private_directory(const std::string& path);

} // namespace godwit::sys
