#pragma once

/// Where a host keeps its sockets unless told otherwise, and directories that are nobody else's.
/// Any thread.

#include "base/result.h"

#include <string>
#include <string_view>

namespace godwit::sys {

/// GODWIT_RUN_DIR, else /run/godwit for root, else $XDG_RUNTIME_DIR/godwit, else /tmp/godwit-<uid>.
[[nodiscard]] std::string default_run_path();

/// Makes the directory with mode 0700 if it is missing; permission_denied if it belongs to somebody
/// else, is open to others or cannot be written.
[[nodiscard]] Status prepare_private_directory(const std::string& path);

/// What a disk that godwit-blk exports is called: 1 to 48 letters, digits, '.', '_' and '-', not
/// beginning with a '.'; invalid_argument otherwise.
[[nodiscard]] Status check_export_name(std::string_view name);
/// Where the control sockets of exports lie.
[[nodiscard]] std::string exports_folder(const std::string& run_directory);
[[nodiscard]] std::string export_socket(const std::string& run_directory, std::string_view name);

} // namespace godwit::sys
