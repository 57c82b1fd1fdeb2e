#include "sim/link.h"

#include <algorithm>
#include <string>

namespace godwit::sim {

std::string_view name_of(Kind kind) noexcept {
    switch (kind) {
    case Kind::hello:
        return "hello";
    case Kind::offer:
        return "offer";
    case Kind::prepared:
        return "prepared";
    case Kind::take_over:
        return "take over";
    case Kind::running:
        return "running";
    case Kind::settle:
        return "settle";
    case Kind::settled:
        return "settled";
    case Kind::failed:
        return "failed";
    case Kind::abort:
        return "abort";
    }
    return "unknown";
}

std::pair<std::shared_ptr<LinkEnd>, std::shared_ptr<LinkEnd>>
LinkEnd::pair(Executor& executor, const LinkFaults& faults) {
    std::shared_ptr<LinkEnd> one(new LinkEnd(executor, faults));
    std::shared_ptr<LinkEnd> other(new LinkEnd(executor, faults));
    one->peer_ = other;
    other->peer_ = one;
    return {std::move(one), std::move(other)};
}

Status LinkEnd::send(const Packet& packet) {
    const auto peer = peer_.lock();
    if (peer == nullptr) {
        return Error(ErrorCode::peer_closed, "the peer is gone");
    }
    if (!executor_.dice().one_in(faults_.lost_odds)) {
        peer->deliver(packet);
        if (executor_.dice().one_in(faults_.repeated_odds)) {
            peer->deliver(packet);
        }
    }
    return ok();
}

void LinkEnd::deliver(const Packet& packet) {
    sys::Moment due = executor_.now() + executor_.dice().up_to(faults_.delay_max);
    if (!inbox_.empty()) {
        due = std::max(due, inbox_.back().due); // In order, as a stream socket keeps it.
    }
    inbox_.push_back({.due = due, .packet = packet});
}

bool LinkEnd::readable() const {
    return inbox_.empty() ? peer_.expired() : executor_.now() >= inbox_.front().due;
}

Result<Packet> LinkEnd::receive(sys::Nanoseconds limit) {
    // What is under way arrives even where nothing else happens until then.
    const sys::Moment start = executor_.now();
    for (;;) {
        sys::Nanoseconds left = limit;
        if (limit >= sys::Nanoseconds(0)) {
            left = std::max(sys::Nanoseconds(0), limit - (executor_.now() - start));
        }
        const bool waits_for_letter =
            !inbox_.empty() && inbox_.front().due > executor_.now() &&
            (left < sys::Nanoseconds(0) || inbox_.front().due - executor_.now() <= left);
        const sys::Nanoseconds nap = waits_for_letter ? inbox_.front().due - executor_.now() : left;
        const std::size_t before = inbox_.size();
        const bool woken =
            executor_.wait([&] { return readable() || (before == 0 && !inbox_.empty()); }, nap);
        if (readable()) {
            break;
        }
        // In a task that is killed time does not pass: no letter comes any more.
        if (!woken) {
            return Error(ErrorCode::timeout, "no answer in time");
        }
    }
    if (inbox_.empty()) {
        return Error(ErrorCode::peer_closed, "the peer has closed the socket");
    }
    const Packet packet = inbox_.front().packet;
    inbox_.pop_front();
    if (packet.kind == Kind::failed || packet.kind == Kind::abort) {
        return Error(ErrorCode::cancelled, "the peer gave up");
    }
    return packet;
}

Result<Packet> LinkEnd::expect(Kind kind, sys::Nanoseconds limit) {
    const Packet packet = GODWIT_TRY(receive(limit));
    if (packet.kind != kind) {
        return Error(ErrorCode::corrupt,
                     "the peer sent '" + std::string(name_of(packet.kind)) + "' out of order");
    }
    return packet;
}

} // namespace godwit::sim
