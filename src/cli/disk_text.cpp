#include "cli/disk_text.h"

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

/// "12.3 MiB": short rather than exact.
std::string about(std::uint64_t bytes) {
    constexpr std::array<const char*, 5> units{"B", "KiB", "MiB", "GiB", "TiB"};
    double value = static_cast<double>(bytes);
    std::size_t unit = 0;
    while (value >= 1024 && unit + 1 < units.size()) {
        value /= 1024;
        ++unit;
    }
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return text.data();
}

double number(const Json& object, const char* name) {
    const Json value = member(object, name);
    return value.is_number() ? value.get<double>() : 0;
}

std::string two_digits(double value) {
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "%.2f", value);
    return text.data();
}

std::string time_of(const Json& object, const char* name) {
    const Json value = member(object, name);
    return value.is_number_integer() ? duration_text(value.get<std::int64_t>()) : "-";
}

std::string percent(std::uint64_t part, std::uint64_t whole) {
    return std::to_string(whole == 0 ? 0 : part * 100 / whole) + "%";
}

/// Each scheme with what it was expected to cost, and why one was taken.
std::string choice_text(const Json& choice) {
    if (!choice.is_object()) {
        return {};
    }
    Table table({"SCHEME", "COST", "TIME", "WEAR", "IO", "EXPECTED", "PAUSE", ""});
    for (const Json& each : member(choice, "estimates")) {
        const bool chosen = member(each, "chosen") == true;
        table.add({text_member(each, "scheme"),
                   two_digits(number(each, "cost")),
                   two_digits(number(each, "time")),
                   two_digits(number(each, "wear")),
                   two_digits(number(each, "io")),
                   time_of(each, "duration_us"),
                   time_of(each, "pause_us"),
                   chosen                                ? "chosen"
                   : text_member(each, "scheme") == "lr" ? "only when asked for"
                                                         : ""});
    }
    return "  why: " + text_member(choice, "why") + "\n" + table.to_string();
}

std::string mean_time(const Json& timed) {
    const std::uint64_t count = number_member(timed, "timed");
    return count == 0
               ? "-"
               : duration_text(static_cast<std::int64_t>(number_member(timed, "timed_us") / count));
}

/// The power of two of microseconds below which 99 of 100 timed requests stayed.
std::string nearly_all_below(const Json& timed) {
    const std::uint64_t count = number_member(timed, "timed");
    std::uint64_t seen = 0;
    std::int64_t below = 1;
    for (const Json& bucket : member(timed, "below_us")) {
        seen += bucket.is_number_unsigned() ? bucket.get<std::uint64_t>() : 0;
        if (count > 0 && seen * 100 >= count * 99) {
            return duration_text(below);
        }
        below *= 2;
    }
    return "-";
}

/// "2 deltas, 40% of 1.0 GiB"
std::string merge_state(const Json& merge) {
    const std::uint64_t total = number_member(merge, "total_bytes");
    const std::uint64_t left = number_member(merge, "left_bytes");
    return std::to_string(number_member(merge, "deltas")) + " deltas, " +
           percent(total - std::min(left, total), total) + " of " + about(total);
}

/// "2: 120.0 MiB of 1.0 GiB, full"
std::string deltas_state(const Json& deltas) {
    if (!deltas.is_array() || deltas.empty()) {
        return "-";
    }
    const Json& youngest = deltas.back();
    if (member(youngest, "open") != true) {
        return std::to_string(deltas.size()) + ", not open yet";
    }
    const std::string pressure = text_member(youngest, "pressure");
    return std::to_string(deltas.size()) + ": " + about(number_member(youngest, "used_bytes")) +
           " of " + about(number_member(youngest, "room_bytes")) +
           (pressure == "low" ? "" : ", " + pressure);
}

} // namespace

std::string disk_move_progress(const Json& operation) {
    const Json move = member(operation, "progress");
    if (text_member(operation, "kind") == "disk-merge" && move.is_object()) {
        return ", " + merge_state(move);
    }
    if (text_member(operation, "kind") != "disk-move" || !move.is_object()) {
        return {};
    }
    const Json remaining = member(move, "remaining_us");
    const std::uint64_t dirty =
        number_member(move, "dirty_bytes") + number_member(move, "deferred_bytes");
    return ", " + text_member(move, "scheme") + " " +
           percent(number_member(move, "cursor_bytes"), number_member(move, "total_bytes")) +
           " of " + about(number_member(move, "total_bytes")) +
           (dirty == 0 ? "" : ", again " + about(dirty)) + ", " +
           about(number_member(move, "copy_bytes_per_second")) + "/s, guest " +
           about(number_member(move, "guest_bytes_per_second")) + "/s" +
           (remaining.is_number_integer()
                ? ", " + duration_text(remaining.get<std::int64_t>()) + " left"
                : ", no end in sight");
}

std::string disk_move_text(const Json& report) {
    const Json written = member(report, "written_bytes");
    const Json there = member(written, "destination");
    return text_member(report, "machine") + ": " + text_member(report, "disk") + " lies at '" +
           text_member(report, "destination") + "' now, by " + text_member(report, "scheme") +
           " in " + time_of(report, "duration_us") + "; its requests waited " +
           time_of(report, "pause_us") + "\n  copied " + about(number_member(there, "first_copy")) +
           ", " + about(number_member(there, "redundant")) + " more than once; '" +
           text_member(report, "source") + "' is not used any more\n" +
           choice_text(member(report, "choice"));
}

std::string disk_merge_text(const Json& report) {
    return text_member(report, "machine") + ": " + text_member(report, "disk") + " lies in '" +
           text_member(report, "base") + "' alone, " +
           std::to_string(number_member(report, "deltas")) + " deltas merged in " +
           time_of(report, "duration_us") + "; its requests waited " + time_of(report, "pause_us") +
           "\n  folded " + about(number_member(report, "total_bytes")) + "\n";
}

std::string disk_snapshot_text(const Json& report) {
    return text_member(report, "machine") + ": " + text_member(report, "disk") + " is frozen in '" +
           text_member(report, "base") + "', its writes go to '" + text_member(report, "delta") +
           "' (" + about(number_member(report, "delta_bytes")) + ")\n  snapshot " +
           text_member(report, "snapshot") + " in " + time_of(report, "duration_us") +
           "; its requests waited " + time_of(report, "pause_us") + "\n";
}

std::string export_exchange_text(const Json& report) {
    const Json from = member(report, "from");
    const Json to = member(report, "to");
    const auto build = [](const Json& side) {
        return text_member(side, "version") + " " + text_member(side, "build_id").substr(0, 12);
    };
    std::string parts;
    for (const Json& part : member(report, "pause_parts_us")) {
        parts +=
            (parts.empty() ? " (" : ", ") + text_member(part, "part") + " " + time_of(part, "us");
    }
    return text_member(report, "export") + ": served by process " +
           std::to_string(number_member(to, "pid")) + " now, in " + time_of(report, "total_us") +
           "; its users waited " + time_of(report, "pause_us") +
           (parts.empty() ? "" : parts + ")") + "\n  " + build(from) + " -> " + build(to) +
           "; front ends " + std::to_string(number_member(report, "front_ends")) +
           ", NBD clients " + std::to_string(number_member(report, "nbd_clients")) + "\n";
}

std::string disks_text(const Json& answer) {
    Table table({"DISK", "SIZE", "PATH", "DELTAS", "GOING TO", "HOW", "DONE", "LEFT"});
    for (const Json& disk : member(answer, "disks")) {
        const Json move = member(disk, "move");
        const bool moves = move.is_object();
        const std::string deltas = deltas_state(member(disk, "deltas"));
        if (const Json merge = member(disk, "merge"); merge.is_object()) {
            const std::uint64_t total = number_member(merge, "total_bytes");
            const std::uint64_t left = std::min(number_member(merge, "left_bytes"), total);
            table.add({text_member(disk, "disk"),
                       size_text(number_member(disk, "bytes")),
                       text_member(disk, "path"),
                       deltas,
                       text_member(merge, "base"),
                       "merge, " + text_member(merge, "phase"),
                       percent(total - left, total),
                       about(left)});
            continue;
        }
        table.add({text_member(disk, "disk"),
                   size_text(number_member(disk, "bytes")),
                   text_member(disk, "path"),
                   deltas,
                   moves ? text_member(move, "destination") : "-",
                   moves ? text_member(move, "scheme") + ", " + text_member(move, "phase") : "-",
                   moves ? percent(number_member(move, "cursor_bytes"),
                                   number_member(move, "total_bytes"))
                         : "-",
                   moves ? time_of(move, "remaining_us") : "-"});
    }
    return table.to_string();
}

std::string export_metrics_text(const Json& metrics) {
    Table table({"REQUESTS", "COUNT", "BYTES", "MEAN", "99% BELOW"});
    const Json times = member(metrics, "times");
    const auto add = [&](const char* kind, const char* count, const char* bytes) {
        const Json timed = member(times, kind);
        table.add({kind,
                   std::to_string(number_member(metrics, count)),
                   bytes == nullptr ? "-" : about(number_member(metrics, bytes)),
                   mean_time(timed),
                   nearly_all_below(timed)});
    };
    add("reads", "reads", "read_bytes");
    add("changes", "changes", "changed_bytes");
    add("flushes", "flushes", nullptr);
    return table.to_string();
}

} // namespace godwit::cli
