#include "machine/platform/rtc_ticker.h"

#include "base/log.h"

namespace godwit::machine::platform {

RtcTicker::~RtcTicker() {
    quiesce();
    // Behind everything set_wanted() has posted.
    loop_.run_and_wait([this] { timer_.reset(); });
}

void RtcTicker::set_wanted(bool wanted) {
    loop_.post([this, wanted] { arm(wanted); });
}

void RtcTicker::arm(bool wanted) {
    if (!wanted) {
        timer_.reset();
        return;
    }
    // A guest tells a second's begin by the interrupt only roughly; finer than this costs wake-ups.
    constexpr std::chrono::milliseconds period(500);
    auto timer = loop_.schedule(period, period, [this] { tick(); });
    if (timer.has_value()) {
        timer_ = std::move(*timer);
    } else {
        log::warn("rtc_timer_failed", {{"reason", timer.error().to_string()}});
    }
}

void RtcTicker::tick() {
    const std::scoped_lock lock(mutex_);
    if (awake_ != nullptr) {
        awake_->advance();
    }
}

void RtcTicker::wake(Rtc& rtc) {
    const std::scoped_lock lock(mutex_);
    awake_ = &rtc;
}

void RtcTicker::quiesce() {
    const std::scoped_lock lock(mutex_);
    awake_ = nullptr;
}

} // namespace godwit::machine::platform
