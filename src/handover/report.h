#pragma once

/// What a handover tells its operator at the end, whatever the end (docs/reports.md). A value.

#include "base/error.h"
#include "handover/owner_record.h"
#include "handover/phase.h"
#include "handover/timing.h"

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace godwit::handover {

enum class Outcome : std::uint8_t {
    done,                ///< The guest runs at the destination.
    rolled_back,         ///< The guest runs at the source as before.
    failed_after_commit, ///< The destination owns it and has not said that it runs: frozen,
                         ///< recoverable.
};
[[nodiscard]] std::string_view name_of(Outcome outcome) noexcept;

/// How one resource went over.
struct CarriedResource {
    std::string resource; ///< "memory", "disks", "endpoints", "state"
    std::string carrier;  ///< "pointer", "descriptor", "record"
    std::uint64_t bytes_copied = 0;
};

struct Report {
    std::string operation = "exchange";
    std::string machine;
    Outcome outcome = Outcome::rolled_back;
    /// Empty when done; otherwise the named step, the side it failed on and why.
    std::string failed_step;
    std::string side;
    std::string reason;
    std::string error_code;
    std::vector<std::string> blockers;

    std::string source_build_id;
    std::string destination_build_id;
    Ownership before;
    Ownership after;
    std::array<std::int64_t, phase_count> phase_us{};
    /// Last vCPU out at the source until first vCPU in at the destination; -1 if there was none.
    std::int64_t blackout_us = -1;
    /// What the blackout consists of, in order: what was done, microseconds.
    std::vector<std::pair<std::string, std::int64_t>> blackout_parts_us;
    std::vector<CarriedResource> resources;
    std::uint64_t guest_bytes_copied = 0; ///< Counted by the carriers of everything but the state.
    std::uint64_t state_bytes = 0;
    std::uint64_t warmed_bytes = 0;   ///< Of RAM, mapped at the destination before the pause.
    bool second_level_warmed = false; ///< And in KVM's own tables (requirement I-6).
    bool devices_ahead = false;       ///< Loaded before the pause, and still the same in it.
    Timing timing = Timing::late;
    Fetched fetched; ///< Nothing with Timing::late.
    /// Calls the source made into the destination, by name (requirement HR-3).
    std::vector<std::pair<std::string, std::uint32_t>> inverse_calls;
    std::uint32_t frames_sampled = 0;
    std::uint32_t frames_identical = 0;

    void take_times(const PhaseTimes& times) noexcept;
    void fail(Outcome how, std::string_view step, std::string_view failed_side, const Error& error);
};

/// One JSON object, keys as in docs/reports.md.
[[nodiscard]] std::string to_json(const Report& report);

} // namespace godwit::handover
