#include "control/report_history.h"

#include "base/log.h"
#include "sys/fd.h"

#include <fcntl.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>
#include <sstream>

namespace godwit::control {

namespace {

Status append_line(const std::string& path, const std::string& line) {
    sys::Fd fd = GODWIT_TRY(sys::open(path, O_WRONLY | O_CREAT | O_APPEND, 0600));
    if (GODWIT_TRY(sys::file_size(fd)) > ReportHistory::file_bytes_max) {
        std::rename(path.c_str(), (path + ".1").c_str());
        fd = GODWIT_TRY(sys::open(path, O_WRONLY | O_CREAT | O_APPEND, 0600));
    }
    return sys::write_all(fd, std::as_bytes(std::span(line)));
}

} // namespace

void ReportHistory::append(const Json& report) const {
    const Status done = append_line(path_, json_text(report) + "\n");
    if (!done.has_value()) {
        log::warn("history_not_written", {{"reason", done.error().to_string()}});
    }
}

namespace {

/// Adds lines from the end of a file until there are `limit`; newest first.
void add_last(const std::string& path,
              const std::string& machine,
              std::size_t limit,
              std::vector<std::string>& newest_first) {
    const Result<std::string> text = sys::read_file(path, 2 * ReportHistory::file_bytes_max);
    if (!text.has_value()) {
        return;
    }
    std::string_view left = *text;
    while (!left.empty() && newest_first.size() < limit) {
        left = left.substr(0, left.find_last_not_of('\n') + 1);
        const std::size_t before = left.find_last_of('\n');
        const std::string_view line =
            before == std::string_view::npos ? left : left.substr(before + 1);
        left = left.substr(0, before == std::string_view::npos ? 0 : before);
        if (line.empty()) {
            continue;
        }
        const Result<Json> report = parse_json(line);
        if (report.has_value() && report->is_object() &&
            (machine.empty() || text_member(*report, "machine") == machine)) {
            newest_first.emplace_back(line);
        }
    }
}

} // namespace

std::vector<std::string> ReportHistory::last(const std::string& machine, std::size_t limit) const {
    std::vector<std::string> reports;
    const std::size_t wanted = std::min(limit, reports_read_max);
    add_last(path_, machine, wanted, reports);
    add_last(path_ + ".1", machine, wanted, reports);
    std::ranges::reverse(reports);
    return reports;
}

std::vector<std::string> ReportHistory::last_of(const std::string& machine) const {
    const Result<std::string> text = sys::read_file(path_, 2 * file_bytes_max);
    std::vector<std::string> reports;
    if (!text.has_value()) {
        return reports;
    }
    std::istringstream lines(*text);
    for (std::string line; std::getline(lines, line);) {
        const Result<Json> report = parse_json(line);
        if (report.has_value() && text_member(*report, "machine") == machine) {
            reports.push_back(std::move(line));
        }
    }
    if (reports.size() > reports_per_machine_max) {
        reports.erase(reports.begin(),
                      reports.end() - static_cast<std::ptrdiff_t>(reports_per_machine_max));
    }
    return reports;
}

} // namespace godwit::control
