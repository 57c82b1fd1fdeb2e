#pragma once

/// The numbers godwitd gives to a monitoring system: counters and histograms, rendered as
/// OpenMetrics 1.0 text. Labels come from fixed sets, whatever a VMM says. Control thread only.

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace godwit::control {

/// Counts of values up to each bound, cumulative when rendered.
class Histogram {
  public:
    /// Upper bounds in seconds, from 10 us to 10 s.
    static constexpr std::array<double, 19> bounds_seconds{1e-5,
                                                           2.5e-5,
                                                           5e-5,
                                                           1e-4,
                                                           2.5e-4,
                                                           5e-4,
                                                           1e-3,
                                                           2.5e-3,
                                                           5e-3,
                                                           1e-2,
                                                           2.5e-2,
                                                           5e-2,
                                                           0.1,
                                                           0.25,
                                                           0.5,
                                                           1.0,
                                                           2.5,
                                                           5.0,
                                                           10.0};
    void observe(double seconds) noexcept;
    [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
    [[nodiscard]] double sum_seconds() const noexcept { return sum_; }
    /// How many observed values are at most bounds_seconds[index].
    [[nodiscard]] std::uint64_t at_most(std::size_t index) const noexcept;

  private:
    std::array<std::uint64_t, bounds_seconds.size()> counts_{};
    std::uint64_t count_ = 0;
    double sum_ = 0;
};

struct BuildInfo {
    std::string version;
    std::string build_id;
};

class Metrics {
  public:
    void operation_finished(std::string_view kind, std::string_view outcome);
    /// Unknown reasons are counted as "other".
    void machine_ended(std::string_view reason);
    /// What the end of an exchange is counted by. Modes come from exchange_mode.h, phases from
    /// handover/phase.h; unknown outcomes are counted as "other".
    struct Exchange {
        std::string_view mode;
        std::string outcome;
        std::vector<std::pair<std::string_view, double>> phases; ///< Name and seconds.
        double blackout_seconds = -1;
    };
    /// Times are taken of those that are done: of others they say nothing.
    void exchange_ended(const Exchange& exchange);
    /// Of the move of a disk; `pause_seconds` below 0: it did not come to the switch. Unknown
    /// schemes and outcomes are counted as "other".
    void disk_move_ended(std::string_view scheme, std::string_view outcome, double pause_seconds);
    void machine_adopted() noexcept { ++adopted_; }

    /// `machines` counts machines by state; states without machines are given as 0.
    [[nodiscard]] std::string render(const std::map<std::string, std::uint64_t>& machines,
                                     const BuildInfo& build) const;

  private:
    std::map<std::pair<std::string, std::string>, std::uint64_t> operations_;
    std::map<std::string, std::uint64_t> ended_;
    Histogram blackout_;
    std::map<std::pair<std::string, std::string>, std::uint64_t> exchanges_;  ///< Mode, outcome.
    std::map<std::pair<std::string, std::string>, Histogram> phases_;         ///< Mode, phase.
    std::map<std::pair<std::string, std::string>, std::uint64_t> disk_moves_; ///< Scheme, outcome.
    std::map<std::string, Histogram> disk_move_pauses_;                       ///< By scheme.
    std::uint64_t adopted_ = 0;
};

} // namespace godwit::control
