#include "control/metrics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

namespace godwit::control {

namespace {

constexpr std::array<std::string_view, 6> end_reasons{
    "powered_off", "rebooted", "triple_fault", "internal_error", "killed", "start_failed"};
constexpr std::array<std::string_view, 4> exchange_outcomes{
    "done", "rolled_back", "failed_after_commit", "lost"};
constexpr std::array<std::string_view, 6> move_schemes{
    "dbt", "mirror", "lr", "slr", "aio", "tiered"};
constexpr std::array<std::string_view, 3> move_outcomes{"moved", "cancelled", "failed"};
constexpr std::array<std::string_view, 6> machine_states{
    "starting", "running", "paused", "frozen", "recovering", "unresponsive"};

std::string number_text(double value) {
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "%.9g", value);
    return text.data();
}

/// A label value in quotes (OpenMetrics 1.0, "ABNF": escaped-string).
std::string label(std::string_view value) {
    std::string out = "\"";
    for (const char c : value) {
        if (c == '\n') {
            out += "\\n";
            continue;
        }
        if (c == '"' || c == '\\') {
            out += '\\';
        }
        out += c;
    }
    return out + '"';
}

void header(std::string& out, std::string_view name, std::string_view type, std::string_view help) {
    out.append("# TYPE ").append(name).append(" ").append(type).append("\n");
    out.append("# HELP ").append(name).append(" ").append(help).append("\n");
}

void time_header(std::string& out, std::string_view name, std::string_view help) {
    out.append("# TYPE ").append(name).append(" histogram\n");
    out.append("# UNIT ").append(name).append(" seconds\n");
    out.append("# HELP ").append(name).append(" ").append(help).append("\n");
}

/// The samples of a histogram; `labels` is empty or "name=\"value\",...".
void write(std::string& out,
           const std::string& name,
           const std::string& labels,
           const Histogram& histogram) {
    const std::string first = labels.empty() ? "{" : "{" + labels + ",";
    const std::string all = labels.empty() ? "" : "{" + labels + "}";
    for (std::size_t i = 0; i < Histogram::bounds_seconds.size(); ++i) {
        out += name + "_bucket" + first + "le=\"" + number_text(Histogram::bounds_seconds[i]) +
               "\"} " + std::to_string(histogram.at_most(i)) + "\n";
    }
    out += name + "_bucket" + first + "le=\"+Inf\"} " + std::to_string(histogram.count()) + "\n";
    out += name + "_count" + all + " " + std::to_string(histogram.count()) + "\n";
    out += name + "_sum" + all + " " + number_text(histogram.sum_seconds()) + "\n";
}

} // namespace

void Histogram::observe(double seconds) noexcept {
    if (!std::isfinite(seconds) || seconds < 0) {
        return;
    }
    const auto* const bound = std::ranges::lower_bound(bounds_seconds, seconds);
    if (bound != bounds_seconds.end()) {
        ++counts_[static_cast<std::size_t>(bound - bounds_seconds.begin())];
    }
    ++count_;
    sum_ += seconds;
}

std::uint64_t Histogram::at_most(std::size_t index) const noexcept {
    std::uint64_t total = 0;
    for (std::size_t i = 0; i <= index && i < counts_.size(); ++i) {
        total += counts_[i];
    }
    return total;
}

void Metrics::operation_finished(std::string_view kind, std::string_view outcome) {
    ++operations_[{std::string(kind), std::string(outcome)}];
}

void Metrics::machine_ended(std::string_view reason) {
    const bool known = std::ranges::find(end_reasons, reason) != end_reasons.end();
    ++ended_[std::string(known ? reason : "other")];
}

void Metrics::exchange_ended(const Exchange& exchange) {
    const bool known =
        std::ranges::find(exchange_outcomes, exchange.outcome) != exchange_outcomes.end();
    ++exchanges_[{std::string(exchange.mode), known ? exchange.outcome : "other"}];
    if (exchange.outcome != "done") {
        return;
    }
    blackout_.observe(exchange.blackout_seconds);
    for (const auto& [phase, seconds] : exchange.phases) {
        phases_[{std::string(exchange.mode), std::string(phase)}].observe(seconds);
    }
}

void Metrics::disk_move_ended(std::string_view scheme,
                              std::string_view outcome,
                              double pause_seconds) {
    const auto known = [](const auto& names, std::string_view name) {
        return std::string(std::ranges::find(names, name) != names.end() ? name : "other");
    };
    const std::string by = known(move_schemes, scheme);
    ++disk_moves_[{by, known(move_outcomes, outcome)}];
    if (pause_seconds >= 0) {
        disk_move_pauses_[by].observe(pause_seconds);
    }
}

std::string Metrics::render(const std::map<std::string, std::uint64_t>& machines,
                            const BuildInfo& build) const {
    std::string out;
    header(out, "godwit_build", "info", "Version and build of this godwitd.");
    out += "godwit_build_info{version=" + label(build.version) +
           ",build_id=" + label(build.build_id) + "} 1\n";
    header(out, "godwit_machines", "gauge", "Machines on this host by state.");
    for (const std::string_view state : machine_states) {
        const auto found = machines.find(std::string(state));
        out += "godwit_machines{state=" + label(state) + "} " +
               std::to_string(found == machines.end() ? 0 : found->second) + "\n";
    }
    header(out, "godwit_machines_ended", "counter", "Machines that ended, by reason.");
    for (const auto& [reason, count] : ended_) {
        out += "godwit_machines_ended_total{reason=" + label(reason) + "} " +
               std::to_string(count) + "\n";
    }
    header(out, "godwit_machines_adopted", "counter", "Running machines found at start.");
    out += "godwit_machines_adopted_total " + std::to_string(adopted_) + "\n";
    header(out, "godwit_operations", "counter", "Finished operations by kind and outcome.");
    for (const auto& [key, count] : operations_) {
        out += "godwit_operations_total{kind=" + label(key.first) +
               ",outcome=" + label(key.second) + "} " + std::to_string(count) + "\n";
    }
    header(
        out, "godwit_exchanges", "counter", "Exchanges of a machine's VMM, by mode and outcome.");
    for (const auto& [key, count] : exchanges_) {
        out += "godwit_exchanges_total{mode=" + label(key.first) + ",outcome=" + label(key.second) +
               "} " + std::to_string(count) + "\n";
    }
    time_header(out,
                "godwit_exchange_blackout_seconds",
                "Time the vCPUs stood still in an exchange that was done.");
    write(out, "godwit_exchange_blackout_seconds", "", blackout_);
    time_header(out,
                "godwit_exchange_phase_seconds",
                "Time spent in each phase of an exchange that was done.");
    for (const auto& [key, histogram] : phases_) {
        write(out,
              "godwit_exchange_phase_seconds",
              "mode=" + label(key.first) + ",phase=" + label(key.second),
              histogram);
    }
    header(out, "godwit_disk_moves", "counter", "Moves of disks, by scheme and outcome.");
    for (const auto& [key, count] : disk_moves_) {
        out += "godwit_disk_moves_total{scheme=" + label(key.first) +
               ",outcome=" + label(key.second) + "} " + std::to_string(count) + "\n";
    }
    time_header(out,
                "godwit_disk_move_pause_seconds",
                "Time a guest's requests waited for the switch of a disk that was moved.");
    for (const auto& [scheme, histogram] : disk_move_pauses_) {
        write(out, "godwit_disk_move_pause_seconds", "scheme=" + label(scheme), histogram);
    }
    return out + "# EOF\n";
}

} // namespace godwit::control
