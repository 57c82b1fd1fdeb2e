#pragma once

/// Runs many blocking tasks in one thread, one at a time, in an order that follows from the seed
/// alone, on a clock that moves only here. No real time passes: when every task waits, the clock
/// jumps to the next deadline.
///
/// Thread rule: one thread. yield(), wait() and current() only from inside a task.

#include "sim/fiber.h"
#include "sim/random.h"
#include "sys/clock.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace godwit::sim {

using TaskId = std::size_t;

class Executor final : public sys::Clock {
  public:
    explicit Executor(std::uint64_t seed) : random_(seed) {}
    /// Ends the tasks that are left, as kill() does.
    ~Executor() override;

    TaskId spawn(std::string name, std::function<void()> body);
    /// Nothing waits any more in this task: it runs to its end at once, and whatever it still calls
    /// must have no effect. This is how a process dies with its stack unwound.
    void kill(TaskId task);
    /// Brings those to their end; step() does so before anything else runs.
    void finish_killed();
    /// The task does not run for this long, as if its process were stopped.
    void stall(TaskId task, sys::Nanoseconds how_long);
    [[nodiscard]] bool finished(TaskId task) const { return tasks_[task].fiber == nullptr; }
    [[nodiscard]] const std::string& name(TaskId task) const { return tasks_[task].name; }

    /// Lets others act here.
    void yield();
    /// Until `condition` holds or time is over; whether it holds. A negative limit is for ever.
    bool wait(const std::function<bool()>& condition, sys::Nanoseconds limit);
    void let_pass(sys::Nanoseconds how_long);
    [[nodiscard]] TaskId current() const noexcept { return current_; }

    /// Runs one task up to its next wait; false if no task can ever run again.
    bool step();

    [[nodiscard]] sys::Moment now() const noexcept override { return now_; }
    [[nodiscard]] std::int64_t unix_nanoseconds() const noexcept override {
        return now_.time_since_epoch().count();
    }
    [[nodiscard]] Random& dice() noexcept { return random_; }
    [[nodiscard]] std::uint64_t steps() const noexcept { return steps_; }

  private:
    struct Task {
        std::string name;
        std::unique_ptr<Fiber> fiber; ///< Null once it has ended.
        const std::function<bool()>* condition = nullptr;
        sys::Moment deadline;
        sys::Moment stalled_until;
        bool killed = false;
    };

    [[nodiscard]] bool ready(const Task& task) const;
    /// The earliest moment at which a waiting task becomes ready by time; never if there is none.
    [[nodiscard]] sys::Moment next_deadline() const;
    void run(TaskId task);

    std::vector<Task> tasks_;
    Random random_;
    sys::Moment now_{std::chrono::seconds(1)};
    TaskId current_ = 0;
    std::uint64_t steps_ = 0;
};

} // namespace godwit::sim
