#pragma once

/// SIGTERM and SIGINT as events of a loop.

#include "base/result.h"
#include "sys/event_loop.h"
#include "sys/fd.h"

#include <functional>
#include <memory>

namespace godwit::sys {

/// As long as it lives `asked` is called on the loop's thread with the number of each such signal.
/// To be made before there are other threads: they inherit that the signals are blocked, which they
/// stay. Thread rule: as EventLoop::watch().
class EndSignals {
  public:
    [[nodiscard]] static Result<std::unique_ptr<EndSignals>>
    watch(EventLoop& loop, std::function<void(int signal)> asked);
    EndSignals(const EndSignals&) = delete;
    EndSignals& operator=(const EndSignals&) = delete;
    ~EndSignals() = default;

  private:
    explicit EndSignals(Fd fd) : fd_(std::move(fd)) {}

    Fd fd_;
    EventLoop::Handle handle_;
};

} // namespace godwit::sys
