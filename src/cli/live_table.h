#pragma once

/// How an operation on many machines or disks looks while it runs: a table that is written over on
/// a terminal, a line per machine or disk that has ended elsewhere, nothing with --json. On stderr.
/// One thread.

#include "cli/session.h"
#include "control/json_text.h"

#include <map>
#include <string>
#include <vector>

namespace godwit::cli {

/// What is told of it.
struct LiveRows {
    const char* list; ///< Of the progress and the report.
    std::string (*name)(const control::Json& row);
    /// What became of one, after its name and outcome; may be empty.
    std::string (*end)(const control::Json& row);
    std::vector<std::string> (*lines)(const control::Json& progress, std::size_t rows_max);
};

class LiveTable {
  public:
    static constexpr std::size_t rows_max = 16;

    LiveTable(const Session& session, const LiveRows& rows);
    LiveTable(const LiveTable&) = delete;
    LiveTable& operator=(const LiveTable&) = delete;
    /// Takes the table away.
    ~LiveTable();
    /// Shows an operation as godwitd describes it; what it no longer tells stays as it was.
    void show(const control::Json& operation);

  private:
    void redraw(const control::Json& progress);
    void tell_ends(const control::Json& rows);
    void erase();

    enum class Form : std::uint8_t { nothing, lines, table };
    const LiveRows rows_;
    Form form_ = Form::nothing;
    unsigned columns_ = 80;
    std::size_t lines_shown_ = 0;
    std::map<std::string, std::string> ended_; ///< Those told of, and how they ended.
};

} // namespace godwit::cli
