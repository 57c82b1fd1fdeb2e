#pragma once

/// The last events of this host, for everybody who wants to follow or catch up.
///
/// Ids grow for ever, also over restarts of godwitd: an id is the time of its event in microseconds
/// since 1970, moved forward where two events would share it. Any thread.

#include "base/result.h"
#include "control/json_text.h"
#include "sys/clock.h"

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace godwit::control {

inline constexpr std::size_t events_kept_max = 4096;

struct Event {
    std::uint64_t id = 0;
    std::string type;
    std::string json; ///< {"id","time","event","machine",...} in one line.
};

class EventLog {
  public:
    explicit EventLog(const sys::Clock& clock, std::size_t kept_max = events_kept_max);

    /// Adds an event. `details` is an object whose members are merged in; machine may be empty.
    std::uint64_t append(std::string_view type, std::string_view machine, const Json& details);

    struct Batch {
        std::vector<Event> events;
        bool gap = false;    ///< Events between `since` and the first one here are no longer kept.
        bool closed = false; ///< No more will come.
    };
    /// Events with ids over `since`, at most `count_max`; waits up to `timeout` for the first.
    [[nodiscard]] Batch
    read(std::uint64_t since, std::size_t count_max, std::chrono::milliseconds timeout);
    /// The newest id, 0 if there was no event yet.
    [[nodiscard]] std::uint64_t newest() const;
    /// Ends all waiting.
    void close();

  private:
    const sys::Clock& clock_;
    const std::size_t kept_max_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Event> events_;      ///< Guarded by mutex_.
    std::uint64_t last_id_ = 0;     ///< Guarded by mutex_.
    std::uint64_t forgotten_until_; ///< Events up to this id are not kept. Guarded by mutex_.
    bool closed_ = false;           ///< Guarded by mutex_.
};

/// "2024-05-01T12:34:56.789Z"
[[nodiscard]] std::string time_text(std::int64_t unix_nanoseconds);

} // namespace godwit::control
