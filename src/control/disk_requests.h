#pragma once

/// What the API takes for work on disks, checked (docs/api/openapi.yaml). Any thread.

#include "control/disk_move_all.h"
#include "control/json_text.h"

#include <string>

namespace godwit::control {

/// Of a path; whether there is such a disk the VMM knows.
[[nodiscard]] Status check_disk_name(const std::string& name);

/// As a VMM takes them, without the disk.
[[nodiscard]] Result<Json> read_disk_move(const Json& body);
[[nodiscard]] Result<Json> read_disk_snapshot(const Json& body);

[[nodiscard]] Result<DiskMoveAllRequest> read_disk_move_all(Json body);

} // namespace godwit::control
