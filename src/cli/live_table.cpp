#include "cli/live_table.h"

#include "cli/table.h"
#include "sys/terminal.h"

#include <nlohmann/json.hpp>

#include <cstdio>

namespace godwit::cli {

using control::Json;
using control::text_member;

LiveTable::LiveTable(const Session& session, const LiveRows& rows) : rows_(rows) {
    if (session.json) {
        return;
    }
    form_ = Form::lines;
    const Result<sys::Fd> stream = sys::standard_stream(2);
    if (stream.has_value() && sys::is_terminal(*stream)) {
        form_ = Form::table;
        columns_ = sys::terminal_columns(*stream);
    }
}

LiveTable::~LiveTable() {
    erase();
}

void LiveTable::erase() {
    if (lines_shown_ > 0) {
        std::fprintf(stderr, "\r\033[%zuA\033[J", lines_shown_);
        lines_shown_ = 0;
    }
}

void LiveTable::show(const Json& operation) {
    const Json running = operation.is_object() ? operation.value("progress", Json()) : Json();
    const Json result = operation.is_object() ? operation.value("result", Json()) : Json();
    if (form_ == Form::table && running.is_object()) {
        redraw(running);
    } else if (form_ == Form::lines) {
        const Json& told = running.is_object() ? running : result;
        tell_ends(told.is_object() ? told.value(rows_.list, Json()) : Json());
    }
}

void LiveTable::redraw(const Json& progress) {
    erase();
    for (std::string& line : rows_.lines(progress, rows_max)) {
        line.resize(std::min<std::size_t>(line.size(), columns_ - 1));
        std::fprintf(stderr, "%s\n", line.c_str());
        ++lines_shown_;
    }
    std::fflush(stderr);
}

void LiveTable::tell_ends(const Json& rows) {
    for (const Json& row : rows) {
        const std::string name = rows_.name(row);
        const std::string outcome = text_member(row, "outcome");
        const bool open = outcome == "waiting" || outcome == "under_way";
        if (open || !ended_.emplace(name, outcome).second) {
            continue;
        }
        std::string line = "[" + std::to_string(ended_.size()) + "/" + std::to_string(rows.size()) +
                           "] " + name + ": " + outcome + rows_.end(row);
        if (const std::string reason = text_member(row, "reason"); !reason.empty()) {
            line += ": " + reason;
        }
        std::fprintf(stderr, "%s\n", printable(line).c_str());
    }
}

} // namespace godwit::cli
