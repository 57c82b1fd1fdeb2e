#pragma once

/// Reports of what was done to machines, one JSON line each, kept on disk for people and tools.
/// Two files at most: the present one and the one before it. Control thread only.

#include "base/result.h"
#include "base/units.h"
#include "control/json_text.h"

#include <cstdint>
#include <string>
#include <vector>

namespace godwit::control {

inline constexpr std::size_t reports_per_machine_max = 100;

class ReportHistory {
  public:
    /// Starts a new file when the present one has grown over this.
    static constexpr std::uint64_t file_bytes_max = 4 * mib;
    explicit ReportHistory(std::string path) : path_(std::move(path)) {}
    /// Adds a report; a failure is logged, because the operation itself is over.
    void append(const Json& report) const;
    /// How many last() gives at most.
    static constexpr std::size_t reports_read_max = 10'000;
    /// The last `limit` reports of one machine or, if it is empty, of all, oldest first, from both
    /// files.
    [[nodiscard]] std::vector<std::string> last(const std::string& machine,
                                                std::size_t limit) const;
    /// The last reports of one machine, oldest first; lines that make no sense are skipped.
    [[nodiscard]] std::vector<std::string> last_of(const std::string& machine) const;

  private:
    std::string path_;
};

} // namespace godwit::control
