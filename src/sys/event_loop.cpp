#include "sys/event_loop.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>

#include <unistd.h>

#include <array>
#include <cerrno>
#include <latch>

namespace godwit::sys {

namespace {
constexpr std::uint64_t wake_id = 0;
constexpr std::size_t events_per_wait_max = 64;
} // namespace

void EventLoop::Handle::reset() noexcept {
    if (loop_ != nullptr) {
        std::exchange(loop_, nullptr)->remove(id_);
    }
}

Result<std::unique_ptr<EventLoop>> EventLoop::create() {
    Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
    if (!epoll.valid()) {
        return Error::from_errno(errno, "create an epoll instance");
    }
    EventFd wake = GODWIT_TRY(EventFd::create());
    std::unique_ptr<EventLoop> loop(new EventLoop(std::move(epoll), std::move(wake)));
    GODWIT_TRY(loop->add(loop->wake_.fd().raw(), EPOLLIN, wake_id));
    return loop;
}

EventLoop::~EventLoop() = default;

Status EventLoop::add(int raw, std::uint32_t events, std::uint64_t id) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = id;
    if (::epoll_ctl(epoll_.raw(), EPOLL_CTL_ADD, raw, &event) != 0) {
        return Error::from_errno(errno, "watch a descriptor");
    }
    return ok();
}

Result<EventLoop::Handle>
EventLoop::watch(const Fd& fd, std::uint32_t events, FdCallback callback) {
    const std::uint64_t id = next_id_++;
    GODWIT_TRY(add(fd.raw(), events, id));
    auto entry = std::make_shared<Watch>();
    entry->raw = fd.raw();
    entry->callback = std::move(callback);
    watches_.emplace(id, std::move(entry));
    return Handle(this, id);
}

Status EventLoop::rearm(const Handle& handle, std::uint32_t events) {
    const auto found = watches_.find(handle.id_);
    if (handle.loop_ != this || found == watches_.end()) {
        return Error(ErrorCode::invalid_argument, "rearm a watch that is not in this loop");
    }
    epoll_event event{};
    event.events = events;
    event.data.u64 = handle.id_;
    if (::epoll_ctl(epoll_.raw(), EPOLL_CTL_MOD, found->second->raw, &event) != 0) {
        return Error::from_errno(errno, "change a watch");
    }
    return ok();
}

namespace {

timespec to_timespec(std::chrono::nanoseconds duration) noexcept {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(duration);
    return {.tv_sec = seconds.count(), .tv_nsec = (duration - seconds).count()};
}

} // namespace

Result<EventLoop::Handle> EventLoop::schedule(std::chrono::nanoseconds delay,
                                              std::chrono::nanoseconds period,
                                              Callback callback) {
    Fd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    if (!timer.valid()) {
        return Error::from_errno(errno, "create a timer");
    }
    // A zero first expiry would disarm the timer instead of firing at once.
    const auto first = delay.count() > 0 ? delay : std::chrono::nanoseconds(1);
    const itimerspec when{.it_interval = to_timespec(period), .it_value = to_timespec(first)};
    if (::timerfd_settime(timer.raw(), 0, &when, nullptr) != 0) {
        return Error::from_errno(errno, "arm a timer");
    }
    const std::uint64_t id = next_id_++;
    const int raw = timer.raw();
    GODWIT_TRY(add(raw, EPOLLIN, id));
    auto entry = std::make_shared<Watch>();
    entry->owned = std::move(timer);
    entry->raw = raw;
    entry->callback = [raw, task = std::move(callback)](std::uint32_t) mutable {
        std::uint64_t expirations = 0;
        if (::read(raw, &expirations, sizeof(expirations)) ==
            static_cast<ssize_t>(sizeof(expirations))) {
            task();
        }
    };
    watches_.emplace(id, std::move(entry));
    return Handle(this, id);
}

EventLoop::Handle EventLoop::before_wait(WaitHook hook) {
    const std::uint64_t id = next_id_++;
    hooks_.push_back(std::make_shared<Hook>(Hook{.id = id, .callback = std::move(hook)}));
    return Handle(this, id);
}

std::chrono::milliseconds EventLoop::run_hooks(std::chrono::milliseconds timeout) {
    const bool timed_out = std::exchange(timed_out_, false);
    for (std::size_t i = 0; i < hooks_.size();) {
        const std::shared_ptr<Hook> hook = hooks_[i];
        const std::chrono::milliseconds wanted = hook->callback(timed_out);
        if (i == hooks_.size() || hooks_[i] != hook) {
            continue; // It removed itself; the next one is in its place.
        }
        if (wanted.count() >= 0 && (timeout.count() < 0 || wanted < timeout)) {
            timeout = wanted;
        }
        ++i;
    }
    return timeout;
}

void EventLoop::remove(std::uint64_t id) noexcept {
    const auto found = watches_.find(id);
    if (found == watches_.end()) {
        std::erase_if(hooks_, [id](const auto& hook) { return hook->id == id; });
        return;
    }
    ::epoll_ctl(epoll_.raw(), EPOLL_CTL_DEL, found->second->raw, nullptr);
    watches_.erase(found);
}

void EventLoop::post(Callback task) {
    {
        const std::lock_guard lock(mutex_);
        posted_.push_back(std::move(task));
    }
    wake_.signal();
}

EventLoop::Hold EventLoop::hold() {
    const std::thread::id here = std::this_thread::get_id();
    run_and_wait([] {}); // What was posted before comes first.
    std::latch resting(1);
    post([this, &resting, here] {
        holder_.store(here);
        resting.count_down();
        holder_.wait(here);
    });
    resting.wait();
    return Hold(*this);
}

EventLoop::Hold::~Hold() {
    if (loop_ != nullptr) {
        loop_->holder_.store(std::thread::id());
        loop_->holder_.notify_all();
    }
}

void EventLoop::run_and_wait(Callback task) {
    if (holder_.load() == std::this_thread::get_id()) {
        task();
        return;
    }
    std::latch done(1);
    post([&] {
        task();
        done.count_down();
    });
    done.wait();
}

void EventLoop::stop() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    wake_.signal();
}

void EventLoop::run_posted() {
    std::vector<Callback> tasks;
    {
        const std::lock_guard lock(mutex_);
        tasks.swap(posted_);
    }
    for (Callback& task : tasks) {
        task();
    }
}

Status EventLoop::run() {
    for (;;) {
        {
            const std::lock_guard lock(mutex_);
            if (stopping_) {
                stopping_ = false;
                return ok();
            }
        }
        GODWIT_TRY(run_once(std::chrono::milliseconds(-1)));
    }
}

Status EventLoop::run_once(std::chrono::milliseconds timeout) {
    const std::chrono::milliseconds limit = run_hooks(timeout);
    std::array<epoll_event, events_per_wait_max> ready{};
    const int count = ::epoll_wait(epoll_.raw(),
                                   ready.data(),
                                   static_cast<int>(ready.size()),
                                   static_cast<int>(limit.count()));
    timed_out_ = count == 0 && limit != timeout;
    if (count < 0) {
        if (errno == EINTR) {
            return ok();
        }
        return Error::from_errno(errno, "wait for events");
    }
    for (int i = 0; i < count; ++i) {
        const epoll_event& event = ready[static_cast<std::size_t>(i)];
        // A copy: epoll_event is packed, and find() takes a reference.
        const std::uint64_t id = event.data.u64;
        if (id == wake_id) {
            wake_.drain();
            run_posted();
            continue;
        }
        // A callback served earlier in this batch may have removed this watch.
        const auto found = watches_.find(id);
        if (found != watches_.end()) {
            const std::shared_ptr<Watch> watch = found->second;
            watch->callback(event.events);
        }
    }
    return ok();
}

} // namespace godwit::sys
