#include "control/operations.h"

#include "base/log.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace godwit::control {

namespace {
/// Over every revision an operation reaches in one godwitd.
constexpr std::uint64_t resumed_revision = 1'000'000;
} // namespace

struct Operations::Operation {
    std::uint64_t id = 0;
    std::string kind;
    std::string machine;
    std::string phase;
    OperationState state = OperationState::running;
    std::uint64_t revision = 1;
    std::int64_t started_ns = 0;
    std::int64_t finished_ns = 0;
    CancelAction cancel;
    bool cancelling = false;
    Json error;
    Json result;
    Json progress;
};

struct Operations::Waiter {
    std::uint64_t operation = 0;
    std::uint64_t revision = 0;
    Reply<std::string> reply;
    sys::EventLoop::Handle timer;
};

std::string_view name_of(OperationState state) noexcept {
    switch (state) {
    case OperationState::running:
        return "running";
    case OperationState::succeeded:
        return "succeeded";
    case OperationState::failed:
        return "failed";
    case OperationState::cancelled:
        return "cancelled";
    }
    return "unknown";
}

Operations::Operations(sys::EventLoop& loop,
                       EventLog& events,
                       Metrics& metrics,
                       const sys::Clock& clock)
    : loop_(loop), events_(events), metrics_(metrics), clock_(clock) {}

Operations::~Operations() = default;

std::uint64_t
Operations::begin(std::string_view kind, std::string_view machine, CancelAction cancel) {
    const std::int64_t now = clock_.unix_nanoseconds();
    last_id_ = std::max(last_id_ + 1, static_cast<std::uint64_t>(now / 1000));
    Operation& made = operations_[last_id_];
    made.id = last_id_;
    made.kind = kind;
    made.machine = machine;
    made.started_ns = now;
    made.cancel = std::move(cancel);
    for (auto at = operations_.begin();
         operations_.size() > operations_kept_max && at != operations_.end();) {
        at = at->second.state == OperationState::running ? std::next(at) : operations_.erase(at);
    }
    events_.append(
        "operation", machine, {{"operation", last_id_}, {"kind", kind}, {"state", "running"}});
    return last_id_;
}

void Operations::resume(std::uint64_t id, std::string_view kind) {
    last_id_ = std::max(last_id_, id);
    Operation& made = operations_[id];
    made.id = id;
    made.kind = kind;
    // What waits for it saw other revisions of it.
    made.revision = resumed_revision;
    made.started_ns = static_cast<std::int64_t>(id) * 1000; // As begin() chooses ids.
}

void Operations::set_phase(std::uint64_t id, std::string_view phase) {
    const auto found = operations_.find(id);
    if (found == operations_.end() || found->second.phase == phase) {
        return;
    }
    found->second.phase = phase;
    changed(found->second);
}

void Operations::set_progress(std::uint64_t id, const Json& progress) {
    const auto found = operations_.find(id);
    if (found != operations_.end() && found->second.state == OperationState::running) {
        found->second.progress = progress;
        changed(found->second);
    }
}

void Operations::succeed(std::uint64_t id, const Json& result) {
    finish(id, OperationState::succeeded, nullptr, result);
}

void Operations::fail(std::uint64_t id, const Error& error, const Json& result) {
    const bool cancelled = error.code() == ErrorCode::cancelled;
    finish(id, cancelled ? OperationState::cancelled : OperationState::failed, &error, result);
}

void Operations::finish(std::uint64_t id,
                        OperationState state,
                        const Error* error,
                        const Json& result) {
    const auto found = operations_.find(id);
    if (found == operations_.end() || found->second.state != OperationState::running) {
        return;
    }
    Operation& operation = found->second;
    operation.state = state;
    operation.finished_ns = clock_.unix_nanoseconds();
    operation.result = result;
    operation.progress = Json();
    operation.cancel = nullptr;
    Json details{{"operation", id}, {"kind", operation.kind}, {"state", name_of(state)}};
    if (error != nullptr) {
        operation.error = json_of(*error);
        details["error"] = operation.error;
        log::warn("operation_failed",
                  {{"operation", id},
                   {"kind", operation.kind},
                   {"machine", operation.machine},
                   {"reason", error->to_string()}});
    }
    metrics_.operation_finished(operation.kind, name_of(state));
    events_.append("operation", operation.machine, details);
    changed(operation);
}

Status Operations::cancel(std::uint64_t id) {
    const auto found = operations_.find(id);
    if (found == operations_.end()) {
        return Error(ErrorCode::not_found, "there is no operation " + std::to_string(id));
    }
    Operation& operation = found->second;
    if (operation.state != OperationState::running) {
        return Error(ErrorCode::conflict, "operation " + std::to_string(id) + " has already ended");
    }
    if (operation.cancelling) {
        return ok();
    }
    if (!operation.cancel) {
        return Error(ErrorCode::unsupported, "a " + operation.kind + " cannot be cancelled");
    }
    // The action may end the operation at once and so drop itself.
    CancelAction action = std::move(operation.cancel);
    operation.cancel = nullptr;
    const Status done = action();
    const auto again = operations_.find(id);
    if (again != operations_.end() && again->second.state == OperationState::running) {
        again->second.cancelling = done.has_value();
        again->second.cancel = std::move(action);
        changed(again->second);
    }
    return done;
}

const Operations::Operation* Operations::find(std::uint64_t id) const {
    const auto found = operations_.find(id);
    return found == operations_.end() ? nullptr : &found->second;
}

bool Operations::running(std::uint64_t id) const {
    const Operation* const operation = find(id);
    return operation != nullptr && operation->state == OperationState::running;
}

std::size_t Operations::running_count() const {
    return static_cast<std::size_t>(std::ranges::count_if(operations_, [](const auto& entry) {
        return entry.second.state == OperationState::running;
    }));
}

std::string Operations::kind_of(std::uint64_t id) const {
    const Operation* const operation = find(id);
    return operation == nullptr ? std::string("operation") : operation->kind;
}

Json Operations::json_of_operation(const Operation& operation) const {
    Json body{{"id", operation.id},
              {"kind", operation.kind},
              {"machine", operation.machine},
              {"state", name_of(operation.state)},
              {"phase", operation.phase},
              {"revision", operation.revision},
              {"started", time_text(operation.started_ns)},
              {"cancellable", static_cast<bool>(operation.cancel) && !operation.cancelling},
              {"error", operation.error},
              {"result", operation.result},
              {"progress", operation.progress}};
    body["finished"] = operation.finished_ns == 0 ? Json() : Json(time_text(operation.finished_ns));
    const std::int64_t until =
        operation.finished_ns == 0 ? clock_.unix_nanoseconds() : operation.finished_ns;
    body["duration_us"] = (until - operation.started_ns) / 1000;
    return body;
}

Result<std::string> Operations::describe(std::uint64_t id) const {
    const Operation* const operation = find(id);
    if (operation == nullptr) {
        return Error(ErrorCode::not_found,
                     "there is no operation " + std::to_string(id) +
                         "; only the last ones since godwitd's start are known");
    }
    return json_text(json_of_operation(*operation));
}

Json Operations::describe_all() const {
    Json list = Json::array();
    for (const auto& [id, operation] : operations_) {
        list.push_back(json_of_operation(operation));
    }
    return list;
}

void Operations::wait(std::uint64_t id,
                      std::uint64_t revision,
                      std::chrono::milliseconds timeout,
                      Reply<std::string> reply) {
    const Operation* const operation = find(id);
    if (operation == nullptr || operation->state != OperationState::running ||
        operation->revision > revision || closed_ || waiters_.size() >= operation_waiters_max) {
        reply(describe(id));
        return;
    }
    waiters_.push_back(
        {.operation = id, .revision = revision, .reply = std::move(reply), .timer = {}});
    const auto self = std::prev(waiters_.end());
    Result<sys::EventLoop::Handle> timer = loop_.schedule(timeout, {}, [this, self] {
        Waiter waiter = std::move(*self);
        waiters_.erase(self);
        waiter.reply(describe(waiter.operation));
    });
    if (!timer.has_value()) {
        Waiter waiter = std::move(*self);
        waiters_.erase(self);
        waiter.reply(std::move(timer.error()));
        return;
    }
    self->timer = std::move(*timer);
}

void Operations::changed(Operation& operation) {
    ++operation.revision;
    std::list<Waiter> ready;
    for (auto at = waiters_.begin(); at != waiters_.end();) {
        const auto next = std::next(at);
        if (at->operation == operation.id &&
            (operation.state != OperationState::running || operation.revision > at->revision)) {
            ready.splice(ready.end(), waiters_, at);
        }
        at = next;
    }
    for (Waiter& waiter : ready) {
        waiter.timer.reset();
        waiter.reply(describe(waiter.operation));
    }
}

void Operations::close() {
    closed_ = true;
    std::list<Waiter> abandoned;
    abandoned.swap(waiters_);
}

} // namespace godwit::control
