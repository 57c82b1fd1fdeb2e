#pragma once

/// An event loop with a thread of its own, for device back ends. Made by whoever wires the process;
/// libraries are given the loop. The loop runs from creation to destruction.

#include "sys/event_loop.h"

#include <memory>
#include <string>
#include <thread>

namespace godwit::sys {

class IoThread {
  public:
    [[nodiscard]] static Result<std::unique_ptr<IoThread>> create(const std::string& name);
    IoThread(const IoThread&) = delete;
    IoThread& operator=(const IoThread&) = delete;
    /// Stops the loop and joins. Everything living on the loop must be gone.
    ~IoThread();
    [[nodiscard]] EventLoop& loop() noexcept { return *loop_; }

  private:
    explicit IoThread(std::unique_ptr<EventLoop> loop) : loop_(std::move(loop)) {}
    std::unique_ptr<EventLoop> loop_;
    std::jthread thread_; ///< Last, so that it joins before the loop goes.
};

} // namespace godwit::sys
