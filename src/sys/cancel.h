#pragma once

/// A request to stop what is going on: a flag for loops and a descriptor for those who wait.
/// Thread rule: any thread; reset() only while nobody watches.

#include "base/result.h"
#include "sys/fd.h"

#include <atomic>

namespace godwit::sys {

class Cancel {
  public:
    [[nodiscard]] static Result<Cancel> create() { return Cancel(GODWIT_TRY(EventFd::create())); }
    Cancel(Cancel&& other) noexcept
        : wanted_(other.wanted_.load()), event_(std::move(other.event_)) {}
    Cancel(const Cancel&) = delete;
    Cancel& operator=(const Cancel&) = delete;
    ~Cancel() = default;

    void request() noexcept {
        wanted_.store(true);
        event_.signal();
    }
    void reset() noexcept {
        wanted_.store(false);
        event_.drain();
    }
    [[nodiscard]] const std::atomic<bool>& wanted() const noexcept { return wanted_; }
    /// Readable as long as it is requested.
    [[nodiscard]] const Fd& fd() const noexcept { return event_.fd(); }

  private:
    explicit Cancel(EventFd event) noexcept : event_(std::move(event)) {}
    std::atomic<bool> wanted_{false};
    EventFd event_;
};

} // namespace godwit::sys
