#pragma once

/// The present server's end of an exchange of godwit-blk: starts the successor, brings the doors to
/// rest, hands everything over and hears that it is served there. Steps and their undo: source.cpp.
///
/// One token (an eventfd that counts 1) decides who owns the export, from the moment on when it is
/// sent: whoever takes the count. Taken by the successor, this process touches nothing any more;
/// taken by this process, the successor does not begin.
///
/// Thread rule: a thread of its own, neither the disk's loop nor the control loop, which both run.

#include "doors/exchange/report.h"
#include "doors/exported_disk.h"
#include "doors/nbd/server.h"
#include "doors/serve_options.h"
#include "doors/vhost/door.h"
#include "sys/clock.h"
#include "sys/process.h"

#include <chrono>
#include <functional>
#include <optional>
#include <string>

namespace godwit::doors::exchange {

struct Limits {
    /// For the successor to stand, while the users are served.
    std::chrono::milliseconds prepare{30'000};
    /// From when the doors come to rest until the successor serves; then the export is taken back.
    /// One that has taken it by then has as long again to say so.
    std::chrono::milliseconds deadline{5'000};
};

struct SourceParts {
    const ServeOptions& options;
    ExportedDisk& disk;         ///< Does not move.
    nbd::Server* nbd = nullptr; ///< Null: no such door.
    vhost::Door* vhost = nullptr;
    const sys::Fd* control = nullptr; ///< Listening; null: there is none.
    /// Lets nobody in at the control socket, and lets them in again.
    std::function<void()> stop_control;
    std::function<void()> begin_control;
    std::string own_program;
    std::string program; ///< The successor's; absolute.
    Limits limits;
    const sys::Clock& clock;
};

struct Ended {
    Report report;
    /// The successor, if it owns the export. Then the doors were let go, and are to be closed.
    std::optional<sys::Process> successor;
};

[[nodiscard]] Ended run_source(SourceParts parts);

} // namespace godwit::doors::exchange
