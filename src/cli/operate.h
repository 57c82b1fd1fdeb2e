#pragma once

/// Starting an operation of godwitd and seeing it through to its exit code. One thread.

#include "cli/session.h"

#include <string>

namespace godwit::cli {

/// godwitd, for something done to the machine `name`, which is checked first.
[[nodiscard]] Result<DaemonClient> daemon_for(const Session& session, const std::string& name);

/// A request that is answered at once; prints the machine, or `text`.
[[nodiscard]] ExitCode put_and_print(const Session& session,
                                     const std::string& name,
                                     const std::string& action,
                                     const control::Json& body,
                                     const std::string& text);

/// Starts the operation behind `path`, follows it and prints its result with `text_of`. A report of
/// an operation that failed is printed with --json, its error always.
[[nodiscard]] ExitCode operate(const Session& session,
                               const Result<DaemonClient>& daemon,
                               const std::string& path,
                               const control::Json& body,
                               std::string (*text_of)(const control::Json& result));
/// The end of an operation that has been followed, or could not be started.
[[nodiscard]] ExitCode conclude(const Session& session,
                                const Result<control::Json>& operation,
                                std::string (*text_of)(const control::Json& result));

} // namespace godwit::cli
