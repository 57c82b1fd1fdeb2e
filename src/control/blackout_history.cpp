#include "control/blackout_history.h"

#include <algorithm>
#include <vector>

namespace godwit::control {

namespace {

void keep(std::deque<std::int64_t>& values, std::int64_t value, std::size_t kept_max) {
    values.push_back(value);
    if (values.size() > kept_max) {
        values.pop_front();
    }
}

std::int64_t median_of(const std::deque<std::int64_t>& values) {
    std::vector<std::int64_t> sorted(values.begin(), values.end());
    std::ranges::sort(sorted);
    const std::size_t middle = sorted.size() / 2;
    return sorted.size() % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

} // namespace

void BlackoutHistory::add(std::string_view machine,
                          std::string_view mode,
                          std::int64_t blackout_us) {
    if (blackout_us < 0) {
        return;
    }
    const std::pair key{std::string(mode), std::string(machine)};
    if (of_machine_.size() < machines_max || of_machine_.contains(key)) {
        keep(of_machine_[key], blackout_us, kept_of_machine_max);
    }
    keep(of_host_[std::string(mode)], blackout_us, kept_of_host_max);
}

std::optional<BlackoutHistory::Expected> BlackoutHistory::expected(std::string_view machine,
                                                                   std::string_view mode) const {
    const auto own = of_machine_.find({std::string(mode), std::string(machine)});
    if (own != of_machine_.end()) {
        return Expected{.median_us = median_of(own->second),
                        .exchanges = own->second.size(),
                        .of_this_machine = true};
    }
    const auto host = of_host_.find(mode);
    if (host == of_host_.end()) {
        return std::nullopt;
    }
    return Expected{.median_us = median_of(host->second),
                    .exchanges = host->second.size(),
                    .of_this_machine = false};
}

} // namespace godwit::control
