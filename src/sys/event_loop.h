#pragma once

/// A single-threaded event loop over epoll(7): descriptors, timers and tasks from other threads.
///
/// Thread rule: everything except post() and stop() belongs to the thread that calls run(). Before
/// run() it belongs to the creator. A callback may add and remove watches, its own included.

#include "base/result.h"
#include "sys/fd.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace godwit::sys {

class EventLoop {
  public:
    using Callback = std::move_only_function<void()>;
    /// Receives the epoll events that are ready (EPOLLIN, EPOLLOUT, EPOLLHUP, ...).
    using FdCallback = std::move_only_function<void(std::uint32_t events)>;
    /// `timed_out`: the last wait ended because a hook wanted it to. Returns how long the next may
    /// last if nothing happens; negative: for ever.
    using WaitHook = std::move_only_function<std::chrono::milliseconds(bool timed_out)>;

    /// Keeps a watch or timer alive; destroying it on the loop's thread removes it.
    class Handle {
      public:
        Handle() = default;
        Handle(Handle&& other) noexcept
            : loop_(std::exchange(other.loop_, nullptr)), id_(other.id_) {}
        Handle& operator=(Handle&& other) noexcept {
            if (this != &other) {
                reset();
                loop_ = std::exchange(other.loop_, nullptr);
                id_ = other.id_;
            }
            return *this;
        }
        Handle(const Handle&) = delete;
        Handle& operator=(const Handle&) = delete;
        ~Handle() { reset(); }
        void reset() noexcept;
        [[nodiscard]] bool active() const noexcept { return loop_ != nullptr; }

      private:
        friend class EventLoop;
        Handle(EventLoop* loop, std::uint64_t id) : loop_(loop), id_(id) {}
        EventLoop* loop_ = nullptr;
        std::uint64_t id_ = 0;
    };

    /// While it lives, the loop's thread rests and run_and_wait() of the thread that made it runs
    /// tasks itself, at once: no waiting for another thread to wake. What is posted or becomes
    /// ready is served afterwards. Moved and destroyed on the thread that made it, before the loop
    /// goes.
    class Hold {
      public:
        Hold(Hold&& other) noexcept : loop_(std::exchange(other.loop_, nullptr)) {}
        Hold& operator=(Hold&&) = delete;
        Hold(const Hold&) = delete;
        Hold& operator=(const Hold&) = delete;
        ~Hold();

      private:
        friend class EventLoop;
        explicit Hold(EventLoop& loop) : loop_(&loop) {}
        EventLoop* loop_;
    };

    [[nodiscard]] static Result<std::unique_ptr<EventLoop>> create();
    EventLoop(const EventLoop&) = delete;
    EventLoop& operator=(const EventLoop&) = delete;
    ~EventLoop();

    /// Calls back while any of `events` (EPOLLIN, EPOLLOUT; level triggered) is ready on `fd`,
    /// which must outlive the handle.
    [[nodiscard]] Result<Handle> watch(const Fd& fd, std::uint32_t events, FdCallback callback);
    /// Changes the events of a watch.
    [[nodiscard]] Status rearm(const Handle& handle, std::uint32_t events);
    /// Calls back once after `delay`, then every `period` if that is not zero.
    [[nodiscard]] Result<Handle>
    schedule(std::chrono::nanoseconds delay, std::chrono::nanoseconds period, Callback callback);

    /// Calls `hook` each time before the loop waits: for what is to be done once for everything
    /// that was ready together, without a system call to come back for it. It may remove itself.
    [[nodiscard]] Handle before_wait(WaitHook hook);

    /// Runs `task` on the loop's thread, in order of posting. Any thread.
    void post(Callback task);
    /// Runs `task` on the loop's thread and waits for it; not from the loop's own thread. Runs it
    /// here if this thread holds the loop.
    void run_and_wait(Callback task);
    /// Waits until the loop's thread, which must be in run(), has come to rest. One holder at a
    /// time; not from the loop's own thread.
    [[nodiscard]] Hold hold();
    /// Makes run() return after the current callback. Any thread.
    void stop();

    /// Serves events until stop(). Returns an error only if epoll itself fails.
    [[nodiscard]] Status run();
    /// Serves what is ready now, or waits up to `timeout` (negative: for ever) for the first event.
    [[nodiscard]] Status run_once(std::chrono::milliseconds timeout);

  private:
    struct Watch {
        Fd owned; ///< The timerfd of a timer; invalid for a plain watch.
        int raw = -1;
        FdCallback callback;
    };

    EventLoop(Fd epoll, EventFd wake) : epoll_(std::move(epoll)), wake_(std::move(wake)) {}
    [[nodiscard]] Status add(int raw, std::uint32_t events, std::uint64_t id);
    void remove(std::uint64_t id) noexcept;
    void run_posted();
    struct Hook {
        std::uint64_t id = 0;
        WaitHook callback;
    };
    [[nodiscard]] std::chrono::milliseconds run_hooks(std::chrono::milliseconds timeout);

    Fd epoll_;
    EventFd wake_;
    std::uint64_t next_id_ = 1;
    /// Shared so that a callback may remove its own watch while it runs.
    std::map<std::uint64_t, std::shared_ptr<Watch>> watches_;
    std::vector<std::shared_ptr<Hook>> hooks_; ///< Shared for the same reason.
    bool timed_out_ = false;                   ///< The last wait, at a hook's wish.
    std::mutex mutex_;
    std::vector<Callback> posted_; ///< Guarded by mutex_.
    bool stopping_ = false;        ///< Guarded by mutex_.
    /// Who holds the loop; nobody: the default id. Waited for by the resting thread.
    std::atomic<std::thread::id> holder_{};
};

} // namespace godwit::sys
