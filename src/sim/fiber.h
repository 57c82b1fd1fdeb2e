#pragma once

/// A function with a stack of its own, which runs only when it is resumed and stops where it
/// suspends: blocking code inside one thread. Not a thread; nothing of it runs at the same time as
/// anything else. One thread, the one that made it.

#include <ucontext.h>

#include <cstddef>
#include <functional>
#include <memory>

namespace godwit::sim {

class Fiber {
  public:
    explicit Fiber(std::function<void()> body);
    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;
    /// It must have finished or never been resumed: what stands on its stack is not unwound.
    ~Fiber();

    /// Runs it until it suspends or ends. Not from inside a fiber.
    void resume();
    /// Back to whoever resumed it. From inside this fiber only.
    void suspend();
    [[nodiscard]] bool started() const noexcept { return started_; }
    [[nodiscard]] bool finished() const noexcept { return finished_; }

  private:
    static void enter(unsigned high, unsigned low);
    void run();

    std::function<void()> body_;
    std::unique_ptr<std::byte[]> stack_;
    ucontext_t own_{};
    ucontext_t resumer_{};
    bool started_ = false;
    bool finished_ = false;
    // What the sanitizers keep of each stack; null without them.
    void* own_shadow_ = nullptr;
    void* resumer_shadow_ = nullptr;
    const void* resumer_stack_ = nullptr;
    std::size_t resumer_stack_bytes_ = 0;
};

} // namespace godwit::sim
