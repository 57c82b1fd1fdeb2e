#include "exchange/partition/witness.h"

#include <poll.h>

#include <algorithm>
#include <csignal>

namespace godwit::exchange::partition {

namespace {

bool is_ready(const sys::Fd& fd, short events) {
    pollfd waiting{.fd = fd.raw(), .events = events, .revents = 0};
    return ::poll(&waiting, 1, 0) == 1 && (waiting.revents & (events | POLLHUP)) != 0;
}

} // namespace

bool ProcessWitness::has_ended() const {
    if (processes_.empty() && !lifeline_.valid()) {
        return false; // Nobody was named: nothing can be proven.
    }
    const bool all_ended = std::ranges::all_of(
        processes_, [](const sys::Process& process) { return is_ready(process.fd(), POLLIN); });
    return all_ended && (!lifeline_.valid() || is_ready(lifeline_, 0));
}

Liveness ProcessWitness::liveness(sys::Moment now) {
    if (has_ended()) {
        return Liveness::terminated;
    }
    const std::uint64_t beats = region_.beats(watched_);
    if (beats != beats_ || beaten_at_ == sys::Moment()) {
        beats_ = beats;
        beaten_at_ = now;
    }
    return now - beaten_at_ > silence_limit ? Liveness::silent : Liveness::alive;
}

Status ProcessWitness::fence() {
    Status first = ok();
    for (const sys::Process& process : processes_) {
        if (is_ready(process.fd(), POLLIN)) {
            continue;
        }
        Status killed = process.signal(SIGKILL);
        if (!killed.has_value() && first.has_value()) {
            first = std::move(killed);
        }
    }
    return first;
}

} // namespace godwit::exchange::partition
