#include "cli/disk_fleet_text.h"

#include "cli/size_text.h"
#include "cli/table.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cstdio>

namespace godwit::cli {

namespace {

using control::Json;
using control::number_member;
using control::text_member;

Json member(const Json& object, const char* name) {
    return object.is_object() && object.contains(name) ? object[name] : Json();
}

std::string two_digits(const Json& number) {
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "%.2f", number.is_number() ? number.get<double>() : 0);
    return text.data();
}

std::string time_of(const Json& object, const char* name) {
    const Json value = member(object, name);
    return value.is_number_integer() ? duration_text(value.get<std::int64_t>()) : "-";
}

std::string name_of_row(const Json& disk) {
    return text_member(disk, "machine") + ":" + text_member(disk, "disk");
}

std::string or_dash(std::string text) {
    return text.empty() ? "-" : std::move(text);
}

/// What a plan costs, against each scheme alone.
std::string totals_text(const Json& plan) {
    if (!plan.is_object()) {
        return {};
    }
    Table table({"TOGETHER", "COST", "TIME"});
    table.add({"as planned", two_digits(member(plan, "cost")), time_of(plan, "duration_us")});
    for (const Json& single : member(plan, "single_schemes")) {
        table.add({"all by " + text_member(single, "scheme"),
                   two_digits(member(single, "cost")),
                   time_of(single, "duration_us")});
    }
    std::string devices;
    for (const Json& device : member(plan, "devices")) {
        devices += (devices.empty() ? "" : ", ") +
                   std::to_string(number_member(device, "at_once")) + " at " +
                   text_member(device, "device");
    }
    return table.to_string() + "moves at a time: at most " + printable(devices) + "\n";
}

std::string counts_text(const Json& counts) {
    std::string text;
    for (const char* outcome :
         {"under_way", "waiting", "left", "cancelled", "failed", "refused", "not_tried"}) {
        if (const std::uint64_t count = number_member(counts, outcome); count > 0) {
            std::string words = outcome;
            std::ranges::replace(words, '_', ' ');
            text += ", " + std::to_string(count) + " " + words;
        }
    }
    return text;
}

} // namespace

std::string disk_fleet_plan_text(const Json& report) {
    Table table({"DISK", "SIZE", "FROM", "TO", "SCHEME", "COST", "BEGINS", "TAKES", "PAUSE", ""});
    for (const Json& disk : member(report, "disks")) {
        const Json forecast = member(disk, "forecast");
        const bool planned = forecast.is_object();
        const std::string outcome = text_member(disk, "outcome");
        table.add({name_of_row(disk),
                   size_text(number_member(disk, "bytes")),
                   or_dash(text_member(disk, "source")),
                   or_dash(text_member(disk, "destination")),
                   or_dash(text_member(disk, "scheme")),
                   planned ? two_digits(member(forecast, "cost")) : "-",
                   planned ? "after " + time_of(forecast, "begins_us") : "-",
                   time_of(forecast, "duration_us"),
                   time_of(forecast, "pause_us"),
                   planned ? "" : outcome + ": " + text_member(disk, "reason")});
    }
    return table.to_string() + totals_text(member(report, "plan"));
}

std::string disk_fleet_text(const Json& report) {
    Table table({"DISK", "LIES AT", "SCHEME", "TOOK", "EXPECTED", "PAUSE", ""});
    for (const Json& disk : member(report, "disks")) {
        const std::string outcome = text_member(disk, "outcome");
        const bool moved = outcome == "moved";
        table.add({name_of_row(disk),
                   or_dash(text_member(disk, moved ? "destination" : "source")),
                   or_dash(text_member(disk, "scheme")),
                   moved ? time_of(disk, "duration_us") : "-",
                   time_of(member(disk, "forecast"), "duration_us"),
                   moved ? time_of(disk, "pause_us") : "-",
                   moved ? "" : outcome + ": " + text_member(disk, "reason")});
    }
    const Json counts = member(report, "counts");
    return table.to_string() + totals_text(member(report, "plan")) +
           std::to_string(number_member(counts, "moved")) + " moved" + counts_text(counts) + "; " +
           time_of(report, "moves_us") + ", with measuring " + time_of(report, "total_us") + "\n";
}

std::vector<std::string> disk_fleet_lines(const Json& progress, std::size_t rows_max) {
    static constexpr std::array<std::string_view, 8> by_interest{
        "under_way", "failed", "cancelled", "refused", "waiting", "moved", "left", "not_tried"};
    const Json list = member(progress, "disks");
    std::vector<const Json*> disks;
    for (const Json& disk : list) {
        disks.push_back(&disk);
    }
    std::ranges::stable_sort(disks, {}, [&](const Json* disk) {
        return std::ranges::find(by_interest, text_member(*disk, "outcome")) - by_interest.begin();
    });
    Table table({"DISK", "SCHEME", "PHASE", "DONE", "RATE", "LEFT", ""});
    for (const Json* disk : disks) {
        if (rows_max-- == 0) {
            break;
        }
        const std::string outcome = text_member(*disk, "outcome");
        const bool at_it = outcome == "under_way";
        const std::uint64_t total = number_member(*disk, "total_bytes");
        const std::uint64_t done = number_member(*disk, "cursor_bytes");
        table.add(
            {name_of_row(*disk),
             or_dash(text_member(*disk, "scheme")),
             at_it ? text_member(*disk, "phase") : outcome,
             at_it && total > 0 ? std::to_string(done * 100 / total) + "%" : "",
             at_it ? size_text(number_member(*disk, "copy_bytes_per_second") >> 20U << 20U) + "/s"
                   : "",
             at_it ? time_of(*disk, "remaining_us") : "",
             text_member(*disk, "reason").substr(0, 60)});
    }
    std::vector<std::string> lines;
    const std::string text = table.to_string();
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = text.find('\n', at);
        lines.push_back(text.substr(at, end - at));
        at = end + 1;
    }
    const Json counts = member(progress, "counts");
    const bool planned = std::ranges::any_of(
        list, [](const Json& disk) { return !text_member(disk, "scheme").empty(); });
    const std::string done = planned ? "moved" : "measured";
    lines.push_back(std::to_string(number_member(planned ? counts : progress, done)) + " of " +
                    std::to_string(list.size()) + " " + done + counts_text(counts));
    return lines;
}

} // namespace godwit::cli
