#include "control/suspension.h"

#include "base/log.h"
#include "base/version.h"
#include "control/exchange_total.h"
#include "sys/process.h"

#include <nlohmann/json.hpp>
#include <unistd.h>

#include <algorithm>

namespace godwit::control {

namespace {

/// Longer than a keeper waits for its new VMM.
constexpr std::chrono::milliseconds settle_time_max{20'000};
constexpr std::uint64_t note_bytes_max = 4 * mib;
constexpr std::uint64_t kept_bytes_max = 64 * kib;

std::string kept_report_path(const RunDirectory& run, const Json& machine) {
    return run.machine(text_member(machine, "machine")) + "/kept-" +
           text_member(machine, "keeper") + ".json";
}

std::int64_t signed_member(const Json& object, const char* name) {
    return object.is_object() && object.contains(name) && object[name].is_number_integer()
               ? object[name].get<std::int64_t>()
               : -1;
}

/// One end of a pair like "build_ids"; null if it is not there.
Json end_of(const Json& report, const char* key, std::size_t index) {
    return report.contains(key) && report[key].is_array() && report[key].size() == 2
               ? report[key][index]
               : Json();
}

/// The note is ours, but lay in a file.
bool was_committed(const Json& machine) {
    return machine.is_object() && machine.contains("committed") && machine["committed"] == true;
}

/// The living process that the note calls `who`, or null.
std::shared_ptr<VmmInstance>
living_of(const MachineEntry& entry, const Json& machine, const char* who) {
    const auto id = handover::parse_instance_id(text_member(machine, who));
    return id.has_value() ? entry.living(*id) : nullptr;
}

} // namespace

Suspension::Suspension(Supervisor& supervisor, std::unique_ptr<Json> note, std::uint64_t operation)
    : supervisor_(supervisor), note_(std::move(note)), operation_(operation) {}

Suspension::~Suspension() = default;

Status Suspension::write_note(const RunDirectory& run, const Json& note) {
    return sys::write_file_atomically(run.suspension_file(), json_text(note));
}

std::unique_ptr<Json> Suspension::read_note(const RunDirectory& run) {
    const Result<std::string> text = sys::read_file(run.suspension_file(), note_bytes_max);
    if (!text.has_value()) {
        return nullptr;
    }
    const Result<Json> note = parse_json(*text, {.bytes_max = note_bytes_max});
    const bool good = note.has_value() && note->is_object() && note->contains("machines") &&
                      (*note)["machines"].is_array() &&
                      std::ranges::all_of((*note)["machines"],
                                          [](const Json& machine) { return machine.is_object(); });
    if (!good) {
        log::warn("suspension_note_unreadable", {{"path", run.suspension_file()}});
        return nullptr;
    }
    return std::make_unique<Json>(*note);
}

void Suspension::begin() {
    auto timer = supervisor_.parts_.loop.schedule(settle_time_max, {}, [this] { finish(); });
    if (timer.has_value()) {
        timer_ = std::move(*timer);
    }
    look();
}

void Suspension::look() {
    if (!over_ && std::ranges::all_of((*note_)["machines"],
                                      [this](const Json& machine) { return settled(machine); })) {
        finish();
    }
}

/// Whether nothing more is going to happen to it: its keeper is gone, or keeps it without a VMM.
bool Suspension::settled(const Json& machine) const {
    const MachineEntry* const entry = supervisor_.find(text_member(machine, "machine"));
    if (entry == nullptr || !was_committed(machine)) {
        return true;
    }
    const auto living = [&](const char* who) { return living_of(*entry, machine, who); };
    if (living("source") != nullptr) {
        return false;
    }
    if (living("successor") == nullptr) {
        return entry->owner != nullptr; // Kept frozen by the keeper or its guard.
    }
    return living("keeper") == nullptr && entry->owner != nullptr &&
           entry->owner == living("successor");
}

/// Adds how it ended: by what the record and its processes say now, and by the keeper's account.
void Suspension::complete(Json& machine) const {
    // Null if the old VMM died without a report.
    const Json old =
        machine.contains("old") && machine["old"].is_object() ? machine["old"] : Json::object();
    const std::string path = kept_report_path(supervisor_.parts_.run, machine);
    const Result<std::string> text = sys::read_file(path, kept_bytes_max);
    const Result<Json> kept =
        text.has_value() ? parse_json(*text) : Result<Json>(Error(text.error()));
    discard_file(path);
    if (!was_committed(machine)) {
        return;
    }
    const MachineEntry* const entry = supervisor_.find(text_member(machine, "machine"));
    if (const auto hanging = entry == nullptr ? nullptr : living_of(*entry, machine, "source")) {
        hanging->kill("its machine belongs to another and it does not end");
    }
    const bool taken = entry != nullptr && entry->owner != nullptr &&
                       entry->owner->id() == text_member(machine, "successor");
    machine["outcome"] = taken ? "done" : entry == nullptr ? "lost" : entry->state();
    if (!kept.has_value() || !kept->is_object()) {
        machine["reason"] = "its keeper has left no report";
        return;
    }
    machine["reason"] = text_member(*kept, "reason");
    for (const char* key :
         {"state_bytes", "frames_sampled", "frames_identical", "resources", "guest_bytes_copied"}) {
        machine[key] = kept->contains(key) ? (*kept)[key] : Json();
    }
    for (const char* key : {"build_ids", "epochs", "owners"}) {
        machine[key] = {end_of(old, key, 0), end_of(*kept, key, 1)};
    }
    const std::int64_t until_kept = signed_member(old, "blackout_us");
    const std::int64_t since_kept = signed_member(*kept, "blackout_us");
    machine["blackout_us"] = until_kept < 0 || since_kept < 0 ? -1 : until_kept + since_kept;
    const Json before = old.contains("phases_us") ? old["phases_us"] : Json();
    const Json after = kept->contains("phases_us") ? (*kept)["phases_us"] : Json();
    machine["phases_us"] = {{"plan", signed_member(before, "plan")},
                            {"prepare", signed_member(before, "prepare")},
                            {"sync", signed_member(before, "sync")},
                            {"suspend", until_kept},
                            {"kept", signed_member(after, "pause")},
                            {"commit", signed_member(after, "commit")},
                            {"resume", signed_member(after, "resume")}};
}

void Suspension::discard_file(const std::string& path) {
    ::unlink(path.c_str());
}

void Suspension::finish() {
    over_ = true;
    timer_.reset();
    Json& note = *note_;
    std::size_t done = 0;
    std::size_t committed = 0;
    std::vector<std::int64_t> blackouts;
    Json counts = Json::object();
    std::string troubles;
    for (Json& machine : note["machines"]) {
        complete(machine);
        const std::string outcome = text_member(machine, "outcome");
        counts[outcome] = counts.value(outcome, 0) + 1;
        committed += was_committed(machine) ? 1U : 0U;
        if (outcome == "done") {
            ++done;
            if (const std::int64_t blackout = signed_member(machine, "blackout_us");
                blackout >= 0) {
                blackouts.push_back(blackout);
            }
        } else {
            troubles += (troubles.empty() ? "" : "; ") + text_member(machine, "machine") + " is " +
                        text_member(machine, "outcome") + ": " + text_member(machine, "reason");
        }
        supervisor_.exchange_ended(text_member(machine, "machine"), machine, ExchangeMode::suspend);
    }
    const bool complete_end = done == note["machines"].size();
    note["outcome"] = complete_end ? "done" : "partial";
    note["reason"] = troubles;
    note["blackout_us"] = blackout_summary(blackouts);
    note["finished"] = time_text(supervisor_.parts_.clock.unix_nanoseconds());
    note["counts"] = std::move(counts);
    note["daemon_build_ids"] = {end_of(note, "daemon_build_ids", 0), build_id()};
    log::info("suspension_ended",
              {{"machines", note["machines"].size()},
               {"done", done},
               {"committed", committed},
               {"blackout_us", percentile(blackouts, 1.0)}});
    ::unlink(supervisor_.parts_.run.suspension_file().c_str());
    supervisor_.history_.append(note);
    supervisor_.parts_.events.append("exchanged_all", "", {{"report", note}});
    if (operation_ != operation_none && complete_end) {
        supervisor_.parts_.operations.succeed(operation_, note);
    } else if (operation_ != operation_none) {
        supervisor_.parts_.operations.fail(
            operation_, Error(ErrorCode::conflict, "not every machine runs: " + troubles), note);
    }
    supervisor_.suspension_over(note);
}

} // namespace godwit::control
