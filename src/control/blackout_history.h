#pragma once

/// How long guests stood still in past exchanges of this host, and what to expect of the next one.
/// A value; control thread only.

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace godwit::control {

class BlackoutHistory {
  public:
    static constexpr std::size_t kept_of_machine_max = 20;
    static constexpr std::size_t kept_of_host_max = 200;
    /// Machines remembered by name, for each mode; of others only the host's numbers are kept.
    static constexpr std::size_t machines_max = 4096;

    /// An exchange that ended well; negative values (the guest was paused) are left out.
    void add(std::string_view machine, std::string_view mode, std::int64_t blackout_us);

    struct Expected {
        std::int64_t median_us = 0;
        std::size_t exchanges = 0;    ///< How many it is the median of.
        bool of_this_machine = false; ///< Else of all machines of the host.
    };
    /// Nothing if no exchange of this mode is known.
    [[nodiscard]] std::optional<Expected> expected(std::string_view machine,
                                                   std::string_view mode) const;

  private:
    using Values = std::deque<std::int64_t>;
    std::map<std::pair<std::string, std::string>, Values> of_machine_; ///< By mode and machine.
    std::map<std::string, Values, std::less<>> of_host_;               ///< By mode.
};

} // namespace godwit::control
