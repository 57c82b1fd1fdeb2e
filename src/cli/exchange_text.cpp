#include "cli/exchange_text.h"

#include "cli/size_text.h"
#include "cli/table.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <utility>

namespace godwit::cli {

using control::Json;
using control::number_member;
using control::text_member;

namespace {

Json member(const Json& object, const char* name) {
    return object.is_object() && object.contains(name) ? object[name] : Json();
}

std::string build(const Json& report, std::size_t index) {
    const Json builds = member(report, "build_ids");
    return builds.is_array() && builds.size() > index && builds[index].is_string() &&
                   !builds[index].get<std::string>().empty()
               ? builds[index].get<std::string>().substr(0, 12)
               : std::string("?");
}

std::string builds(const Json& report) {
    return build(report, 0) + " -> " + build(report, 1);
}

/// A duration, or `otherwise` where none is known.
std::string duration(const Json& microseconds, const char* otherwise) {
    return microseconds.is_number_integer() && microseconds.get<std::int64_t>() >= 0
               ? duration_text(microseconds.get<std::int64_t>())
               : std::string(otherwise);
}

std::string expected(const Json& machine) {
    const std::string from = text_member(machine, "expected_from");
    const Json value = member(machine, "expected_blackout_us");
    if (!value.is_number_integer()) {
        return text_member(machine, "state") == "paused" ? "none, it is paused" : "unknown";
    }
    return duration(value, "unknown") +
           (from == "machine" ? " (its last " : " (this host's last ") +
           std::to_string(number_member(machine, "expected_exchanges")) + ")";
}

std::string carriers(const Json& machine) {
    std::string text;
    for (const Json& carrier : member(machine, "carriers")) {
        text += (text.empty() ? "" : "; ") + text_member(carrier, "resource") + ": " +
                text_member(carrier, "carrier");
    }
    return text;
}

std::string blockers(const Json& machine) {
    std::string text;
    for (const Json& blocker : member(machine, "blockers")) {
        text += "  " + text_member(machine, "machine") + ": " +
                printable(blocker.is_string() ? blocker.get<std::string>() : "?") + "\n";
    }
    return text;
}

std::string counted(const Json& counts, const char* name, const char* text) {
    const std::uint64_t count = number_member(counts, name);
    return count == 0 ? std::string() : ", " + std::to_string(count) + " " + text;
}

/// ", 3 rolled back, 1 not tried": what is not zero.
std::string other_counts(const Json& counts) {
    static constexpr std::array<std::pair<const char*, const char*>, 7> names{{
        {"current", "ran it already"},
        {"rolled_back", "rolled back"},
        {"failed_after_commit", "failed after the commit"},
        {"lost", "lost"},
        {"refused", "refused"},
        {"under_way", "under way"},
        {"not_tried", "not tried"},
    }};
    std::string text;
    for (const auto& [name, shown] : names) {
        text += counted(counts, name, shown);
    }
    return text;
}

/// A host that refuses the partition, where it is only preferred.
std::string without_partition(const Json& report) {
    const Json partition = member(report, "service_partition");
    const std::string reason = printable(text_member(partition, "reason"));
    return reason.empty() || reason == "switched off"
               ? std::string()
               : "  its new VMM was not confined before: " + reason + "\n";
}

} // namespace

std::string exchange_text(const Json& report) {
    return text_member(report, "machine") + " runs in its new VMM (build " + builds(report) +
           "); it stood still for " +
           duration(member(report, "blackout_us"), "no time, it was paused") + ", " +
           std::to_string(number_member(report, "guest_bytes_copied")) +
           " bytes of its memory were copied\n" + without_partition(report);
}

std::string plan_text(const Json& plan) {
    Table table({"MACHINE", "ACTION", "BUILD", "EXPECTED BLACKOUT", "CARRIED BY"});
    std::string speaks_against;
    for (const Json& machine : member(plan, "machines")) {
        table.add({text_member(machine, "machine"),
                   text_member(machine, "action"),
                   builds(machine),
                   expected(machine),
                   carriers(machine)});
        if (text_member(machine, "action") != "nothing") {
            speaks_against += blockers(machine);
        }
    }
    const Json counts = member(plan, "counts");
    std::string text = table.to_string() + "\n" + text_member(plan, "mode") + " to " +
                       printable(text_member(plan, "program")) + ", " +
                       std::to_string(number_member(plan, "concurrency")) + " at a time, by " +
                       text_member(plan, "order") + ": " +
                       std::to_string(number_member(counts, "exchange")) + " to exchange" +
                       counted(counts, "nothing", "run it already") +
                       counted(counts, "refused", "refused") + ". Nothing was touched.\n";
    if (const std::string trouble = text_member(plan, "trouble"); !trouble.empty()) {
        speaks_against = "  " + printable(trouble) + "\n" + speaks_against;
    }
    if (!speaks_against.empty()) {
        text += "\nWhat speaks against it:\n" + speaks_against;
    }
    return text;
}

std::string total_text(const Json& report) {
    const Json counts = member(report, "counts");
    const Json blackout = member(report, "blackout_us");
    std::string text = std::to_string(number_member(counts, "done")) +
                       " machines run in their new VMM" + other_counts(counts) + "; took " +
                       duration(member(report, "total_us"), "?") + "\n";
    if (member(blackout, "max").is_number_integer()) {
        text += "stood still: median " + duration(member(blackout, "p50"), "?") + ", p99 " +
                duration(member(blackout, "p99"), "?") + ", at most " +
                duration(member(blackout, "max"), "?") + "\n";
    }
    const Json slowest = member(report, "slowest");
    if (slowest.is_object()) {
        text += "slowest: " + text_member(slowest, "machine") + " with " +
                duration(member(slowest, "total_us"), "?") + "\n";
    }
    return text;
}

std::string history_text(const Json& reports) {
    Table table({"FINISHED", "MACHINE", "WHAT", "OUTCOME", "MODE", "BLACKOUT", "BUILD", "REASON"});
    for (const Json& report : reports) {
        const bool all = text_member(report, "operation") == "exchange-all";
        const Json blackout = member(report, "blackout_us");
        const Json counts = member(report, "counts");
        table.add(
            {text_member(report, "finished", "-"),
             all ? "(all)" : text_member(report, "machine"),
             text_member(report, "operation"),
             text_member(report, "outcome", "done"),
             text_member(report, "mode", "-"),
             duration(all ? member(blackout, "max") : blackout, "-"),
             all                            ? text_member(report, "build_id").substr(0, 12)
             : report.contains("build_ids") ? builds(report)
                                            : std::string("-"),
             all ? std::to_string(number_member(counts, "done")) + " done" + other_counts(counts)
                 : text_member(report, "reason", text_member(report, "done")).substr(0, 100)});
    }
    return table.to_string();
}

std::vector<std::string> progress_lines(const Json& progress, std::size_t rows_max) {
    static constexpr std::array<std::string_view, 9> by_interest{"under_way",
                                                                 "lost",
                                                                 "failed_after_commit",
                                                                 "rolled_back",
                                                                 "refused",
                                                                 "waiting",
                                                                 "done",
                                                                 "current",
                                                                 "not_tried"};
    std::vector<const Json*> machines;
    const Json list = member(progress, "machines");
    for (const Json& machine : list) {
        machines.push_back(&machine);
    }
    const auto rank = [&](const Json* machine) {
        return std::ranges::find(by_interest, text_member(*machine, "outcome")) -
               by_interest.begin();
    };
    std::ranges::stable_sort(machines, {}, rank);
    Table table({"MACHINE", "PHASE", "BLACKOUT", ""});
    for (const Json* machine : machines) {
        if (rows_max-- == 0) {
            break;
        }
        const std::string outcome = text_member(*machine, "outcome");
        table.add({text_member(*machine, "machine"),
                   outcome == "under_way" ? text_member(*machine, "phase") : outcome,
                   duration(member(*machine, "blackout_us"), ""),
                   text_member(*machine, "reason").substr(0, 60)});
    }
    std::vector<std::string> lines;
    const std::string text = table.to_string();
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = text.find('\n', at);
        lines.push_back(text.substr(at, end - at));
        at = end + 1;
    }
    const Json counts = member(progress, "counts");
    lines.push_back(std::to_string(number_member(counts, "done")) + " of " +
                    std::to_string(list.size()) + " done" + other_counts(counts) +
                    counted(counts, "waiting", "waiting"));
    return lines;
}

} // namespace godwit::cli
