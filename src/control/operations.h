#pragma once

/// Everything that takes long: each operation has an id, a phase, an end with a result or an error,
/// and a way to be cancelled up to its point of no return. The last ones stay readable.
///
/// Ids are unique over restarts of godwitd (see EventLog). Control thread only.

#include "base/result.h"
#include "control/event_log.h"
#include "control/metrics.h"
#include "control/reply.h"
#include "sys/event_loop.h"

#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <optional>
#include <string>

namespace godwit::control {

inline constexpr std::size_t operations_kept_max = 256;
inline constexpr std::size_t operation_waiters_max = 64;

enum class OperationState : std::uint8_t { running, succeeded, failed, cancelled };
[[nodiscard]] std::string_view name_of(OperationState state) noexcept;

/// Asked to cancel: error if it is too late; otherwise the operation ends soon by itself.
using CancelAction = std::move_only_function<Status()>;

class Operations {
  public:
    Operations(sys::EventLoop& loop, EventLog& events, Metrics& metrics, const sys::Clock& clock);
    Operations(const Operations&) = delete;
    Operations& operator=(const Operations&) = delete;
    ~Operations();

    /// Starts one. `cancel` may be empty: then it cannot be cancelled.
    [[nodiscard]] std::uint64_t
    begin(std::string_view kind, std::string_view machine, CancelAction cancel);
    /// Goes on with one that another godwitd has begun; it cannot be cancelled.
    void resume(std::uint64_t id, std::string_view kind);
    void set_phase(std::uint64_t id, std::string_view phase);
    /// How far its parts are, for people who watch; goes when it ends.
    void set_progress(std::uint64_t id, const Json& progress);
    /// Ends it. `result` is JSON; null means none.
    void succeed(std::uint64_t id, const Json& result);
    /// Ends it with an error (code cancelled: as cancelled). `result`: a report, or null.
    void fail(std::uint64_t id, const Error& error, const Json& result);

    [[nodiscard]] Status cancel(std::uint64_t id);
    [[nodiscard]] bool running(std::uint64_t id) const;
    [[nodiscard]] std::size_t running_count() const;
    /// The kind of a running operation, for "busy with ..." messages.
    [[nodiscard]] std::string kind_of(std::uint64_t id) const;

    [[nodiscard]] Result<std::string> describe(std::uint64_t id) const;
    [[nodiscard]] Json describe_all() const;
    /// Answers with describe(id) as soon as its revision is over `revision` (until_end: only at the
    /// end), at the latest after `timeout`.
    static constexpr std::uint64_t until_end = ~std::uint64_t{0};
    void wait(std::uint64_t id,
              std::uint64_t revision,
              std::chrono::milliseconds timeout,
              Reply<std::string> reply);
    /// Releases everybody who waits.
    void close();

  private:
    struct Operation;
    struct Waiter;
    [[nodiscard]] const Operation* find(std::uint64_t id) const;
    void finish(std::uint64_t id, OperationState state, const Error* error, const Json& result);
    void changed(Operation& operation);
    [[nodiscard]] Json json_of_operation(const Operation& operation) const;

    sys::EventLoop& loop_;
    EventLog& events_;
    Metrics& metrics_;
    const sys::Clock& clock_;
    std::map<std::uint64_t, Operation> operations_;
    std::list<Waiter> waiters_;
    std::uint64_t last_id_ = 0;
    bool closed_ = false;
};

} // namespace godwit::control
