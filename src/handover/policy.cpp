#include "handover/policy.h"

namespace godwit::handover {

SyncDecision
decide(const Remaining& remaining, std::uint32_t round, const Limits& limits) noexcept {
    if (remaining.bytes == 0) {
        return SyncDecision::pause_now;
    }
    const double seconds = remaining.bytes_per_second == 0
                               ? -1.0
                               : static_cast<double>(remaining.bytes) /
                                     static_cast<double>(remaining.bytes_per_second);
    const double budget = std::chrono::duration<double>(limits.pause_budget).count();
    if (seconds >= 0.0 && seconds <= budget) {
        return SyncDecision::pause_now;
    }
    return round < limits.rounds_max ? SyncDecision::go_on : SyncDecision::give_up;
}

} // namespace godwit::handover
