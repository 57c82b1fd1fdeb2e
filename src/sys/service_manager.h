#pragma once

/// Telling the service manager that has started this process how it stands (sd_notify(3) of
/// systemd): lines like READY=1 or MAINPID=7, one datagram, to the socket named in NOTIFY_SOCKET.
/// Any thread.

#include "base/result.h"

#include <string_view>

namespace godwit::sys {

/// Done without a word if nobody asked to be told. Never waits: a manager that does not read is an
/// error.
[[nodiscard]] Status tell_service_manager(std::string_view lines);

} // namespace godwit::sys
