#include "control/report_history.h"

#include "base/log.h"
#include "sys/fd.h"

#include <fcntl.h>
#include <nlohmann/json.hpp>

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
