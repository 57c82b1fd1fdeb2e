#include "sim/executor.h"

#include "base/result.h"

#include <algorithm>
#include <utility>

namespace godwit::sim {

namespace {

/// What a step takes at most, so that moments differ.
constexpr std::chrono::microseconds step_time_max{50};

} // namespace

Executor::~Executor() {
    for (TaskId task = 0; task < tasks_.size(); ++task) {
        kill(task);
    }
    finish_killed();
}

TaskId Executor::spawn(std::string name, std::function<void()> body) {
    tasks_.push_back({.name = std::move(name),
                      .fiber = std::make_unique<Fiber>(std::move(body)),
                      .deadline = now_,
                      .stalled_until = now_});
    return tasks_.size() - 1;
}

void Executor::kill(TaskId task) {
    tasks_[task].killed = true;
}

void Executor::stall(TaskId task, sys::Nanoseconds how_long) {
    tasks_[task].stalled_until = std::max(tasks_[task].stalled_until, now_ + how_long);
}

void Executor::yield() {
    wait([] { return true; }, sys::Nanoseconds(0));
}

void Executor::let_pass(sys::Nanoseconds how_long) {
    wait([] { return false; }, how_long);
}

bool Executor::wait(const std::function<bool()>& condition, sys::Nanoseconds limit) {
    const TaskId self = current_;
    if (tasks_[self].killed) {
        return false;
    }
    tasks_[self].condition = &condition;
    tasks_[self].deadline = limit < sys::Nanoseconds(0) ? sys::Moment::max() : now_ + limit;
    Fiber& fiber = *tasks_[self].fiber;
    fiber.suspend();
    // Others may have been spawned meanwhile: the vector may have moved.
    tasks_[self].condition = nullptr;
    return !tasks_[self].killed && condition();
}

bool Executor::ready(const Task& task) const {
    return task.fiber != nullptr && now_ >= task.stalled_until &&
           (now_ >= task.deadline || (task.condition != nullptr && (*task.condition)()));
}

sys::Moment Executor::next_deadline() const {
    sys::Moment next = sys::Moment::max();
    for (const Task& task : tasks_) {
        if (task.fiber == nullptr) {
            continue;
        }
        const bool waits_for_condition = task.condition != nullptr && !(*task.condition)();
        next = std::min(next,
                        std::max(waits_for_condition ? task.deadline : now_, task.stalled_until));
    }
    return next;
}

void Executor::run(TaskId task) {
    current_ = task;
    Fiber& fiber = *tasks_[task].fiber;
    fiber.resume();
    if (fiber.finished()) {
        tasks_[task].fiber.reset();
    }
}

void Executor::finish_killed() {
    for (TaskId task = 0; task < tasks_.size(); ++task) {
        if (tasks_[task].killed && tasks_[task].fiber != nullptr) {
            if (tasks_[task].fiber->started()) {
                run(task);
            } else {
                tasks_[task].fiber.reset();
            }
        }
    }
}

bool Executor::step() {
    finish_killed();
    now_ += random_.up_to(step_time_max);
    std::vector<TaskId> candidates;
    for (TaskId task = 0; task < tasks_.size(); ++task) {
        if (ready(tasks_[task])) {
            candidates.push_back(task);
        }
    }
    if (candidates.empty()) {
        const sys::Moment next = next_deadline();
        if (next == sys::Moment::max()) {
            return false;
        }
        now_ = std::max(now_, next);
        return true;
    }
    ++steps_;
    run(candidates[random_.below(candidates.size())]);
    finish_killed();
    return true;
}

} // namespace godwit::sim
