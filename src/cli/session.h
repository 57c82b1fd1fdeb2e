#pragma once

/// One run of the command line: how to talk to the person and to godwitd, and how it ends.
/// One thread.

#include "base/result.h"
#include "cli/daemon_client.h"
#include "control/json_text.h"

#include <functional>
#include <string>

namespace godwit::cli {

/// What `godwit` ends with (PROTOCOL of the product, docs/reports.md).
enum class ExitCode : int {
    done = 0,
    failed = 1,              ///< Nothing has changed; a guest runs where it was.
    usage = 2,               ///< The input was wrong.
    failed_after_commit = 3, ///< The text says where the guest is.
};

class Session {
  public:
    std::string run_directory; ///< Empty: the default.
    bool json = false;

    /// Reaches godwitd, starting it if needed.
    [[nodiscard]] Result<DaemonClient> daemon() const {
        return DaemonClient::connect(run_directory);
    }

    /// Prints a document in one line with --json, else `text`.
    void print(const control::Json& document, const std::string& text) const;
    /// Prints an error to stderr, as JSON with --json, and gives the exit code for it.
    [[nodiscard]] ExitCode fail(const Error& error) const;
    [[nodiscard]] ExitCode fail(const Error& error, ExitCode code) const;
    /// A remark for a person on stderr; nothing with --json.
    void note(const std::string& text) const;
};

/// Bad input is 2, everything else 1.
[[nodiscard]] ExitCode exit_code_of(const Error& error) noexcept;

/// Follows an operation to its end, with progress on a terminal; Ctrl-C cancels it. Gives the
/// operation as godwitd describes it.
[[nodiscard]] Result<control::Json>
follow(const Session& session, const DaemonClient& daemon, control::Json operation);

/// The same, told by `show` at each change and at the end.
[[nodiscard]] Result<control::Json>
follow(const Session& session,
       const DaemonClient& daemon,
       control::Json operation,
       const std::function<void(const control::Json& operation)>& show);

/// Something that goes on, described as godwitd describes an operation, wherever it does.
struct Following {
    /// Waits for a change, or a while, and gives how it stands then.
    std::function<Result<control::Json>(const control::Json& last)> next;
    std::function<Status()> cancel; ///< What Ctrl-C does.
};
[[nodiscard]] Result<control::Json>
follow(const Session& session,
       control::Json operation,
       const Following& following,
       const std::function<void(const control::Json& operation)>& show);
/// Told by a line of progress.
[[nodiscard]] Result<control::Json>
follow(const Session& session, control::Json operation, const Following& following);

/// The same for an operation that ends in another godwitd than it began in: goes on with the one
/// that serves the run directory then.
[[nodiscard]] Result<control::Json>
follow_to_the_next_daemon(const Session& session,
                          const DaemonClient& daemon,
                          control::Json operation,
                          const std::function<void(const control::Json&)>& show);
/// The exit code of an ended operation: by the outcome in its report if there is one.
[[nodiscard]] ExitCode exit_code_of_operation(const control::Json& operation);

} // namespace godwit::cli
