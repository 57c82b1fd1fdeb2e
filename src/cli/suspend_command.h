#pragma once

/// `godwit exchange ... --mode suspend`: godwitd and its VMMs are replaced with the machines
/// suspended in memory. The godwitd that was asked is not the one that answers.

#include "cli/session.h"

#include <cstdint>
#include <optional>
#include <string>

namespace godwit::cli {

struct SuspendCommand {
    std::string machine;                      ///< Empty: the whole host, godwitd included.
    std::string prefix;                       ///< The new installation; empty: the present one.
    std::uint64_t concurrency = 0;            ///< 0: one for two processors.
    std::optional<std::uint64_t> deadline_ms; ///< Default: 10 s.
    std::uint64_t prepare_ms = 30'000;
};

[[nodiscard]] ExitCode suspend_exchange(const Session& session, const SuspendCommand& command);

/// For people: one line per machine and one in total.
[[nodiscard]] std::string suspension_text(const control::Json& report);

} // namespace godwit::cli
