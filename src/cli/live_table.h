#pragma once

/// How an exchange of all machines looks while it runs: a table that is written over on a terminal,
/// a line per machine that has ended elsewhere, nothing with --json. On stderr. One thread.

#include "cli/session.h"
#include "control/json_text.h"

#include <map>
#include <string>

namespace godwit::cli {

class LiveTable {
  public:
    static constexpr std::size_t rows_max = 16;

    explicit LiveTable(const Session& session);
    LiveTable(const LiveTable&) = delete;
    LiveTable& operator=(const LiveTable&) = delete;
    /// Takes the table away.
    ~LiveTable();
    /// Shows an operation as godwitd describes it; what it no longer tells stays as it was.
    void show(const control::Json& operation);

  private:
    void redraw(const control::Json& progress);
    void tell_ends(const control::Json& machines);
    void erase();

    enum class Form : std::uint8_t { nothing, lines, table };
    Form form_ = Form::nothing;
    unsigned columns_ = 80;
    std::size_t lines_shown_ = 0;
    std::map<std::string, std::string> ended_; ///< Machines told of, and how they ended.
};

} // namespace godwit::cli
