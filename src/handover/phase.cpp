#include "handover/phase.h"

#include <algorithm>

namespace godwit::handover {

std::string_view name_of(Phase phase) noexcept {
    switch (phase) {
    case Phase::plan:
        return "plan";
    case Phase::prepare:
        return "prepare";
    case Phase::sync:
        return "sync";
    case Phase::pause:
        return "pause";
    case Phase::commit:
        return "commit";
    case Phase::resume:
        return "resume";
    case Phase::settle:
        return "settle";
    }
    return "unknown";
}

void PhaseTimes::enter(Phase next) noexcept {
    const sys::Moment now = clock_->now();
    times_[static_cast<std::size_t>(current_)] += now - since_;
    since_ = now;
    current_ = next;
}

void PhaseTimes::shift(Phase from, Phase to, sys::Nanoseconds part) noexcept {
    auto& source = times_[static_cast<std::size_t>(from)];
    const sys::Nanoseconds moved = std::clamp(part, sys::Nanoseconds(0), source);
    source -= moved;
    times_[static_cast<std::size_t>(to)] += moved;
}

} // namespace godwit::handover
