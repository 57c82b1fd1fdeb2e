#pragma once

/// Lets time pass for an Rtc: once a second on an event loop while the clock wants it and the
/// machine runs. No timer exists otherwise. set_wanted() any thread; the rest control thread.

#include "machine/platform/rtc.h"
#include "sys/event_loop.h"

#include <mutex>

namespace godwit::machine::platform {

class RtcTicker {
  public:
    explicit RtcTicker(sys::EventLoop& loop) : loop_(loop) {}
    RtcTicker(const RtcTicker&) = delete;
    RtcTicker& operator=(const RtcTicker&) = delete;
    ~RtcTicker();

    void set_wanted(bool wanted);
    /// Seconds that passed before are counted at once.
    void wake(Rtc& rtc);
    /// No second is counted after it returns.
    void quiesce();

  private:
    void tick();
    void arm(bool wanted);

    sys::EventLoop& loop_;
    sys::EventLoop::Handle timer_; ///< Loop thread only.
    std::mutex mutex_;
    Rtc* awake_ = nullptr; ///< Guarded by mutex_.
};

} // namespace godwit::machine::platform
