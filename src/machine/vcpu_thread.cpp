#include "machine/vcpu_thread.h"

#include "base/log.h"
#include "kvm/vcpu_kick.h"
#include "sys/thread.h"
#include "sys/wait_awake.h"

#include <utility>

namespace godwit::machine {

namespace {

/// For a vCPU to leave the guest.
constexpr auto awake_for_park = std::chrono::microseconds(500);
/// For the end of a task: a vCPU's whole state is read or set in a hundred or two microseconds.
constexpr auto awake_for_task = std::chrono::microseconds(500);
/// For the order after Afterwards::stay_awake: from a loaded vCPU to the machine's start.
constexpr auto awake_for_order = std::chrono::milliseconds(1);

} // namespace

void FirstEntry::note() noexcept {
    if (nanoseconds_.load(std::memory_order_relaxed) == 0) {
        std::int64_t none = 0;
        if (nanoseconds_.compare_exchange_strong(none, clock_.now().time_since_epoch().count())) {
            nanoseconds_.notify_all();
        }
    }
}

sys::Moment FirstEntry::at() const noexcept {
    nanoseconds_.wait(0, std::memory_order_acquire);
    return sys::Moment(sys::Nanoseconds(nanoseconds_.load(std::memory_order_acquire)));
}

Result<std::unique_ptr<VcpuThread>> VcpuThread::create(kvm::Vcpu vcpu, Environment environment) {
    const std::string name = "vcpu" + std::to_string(vcpu.id());
    std::unique_ptr<VcpuThread> made(new VcpuThread(std::move(vcpu), environment));
    made->thread_ = sys::start_thread(name, [self = made.get()] { self->body(); });
    return made;
}

VcpuThread::~VcpuThread() {
    want(Wanted::gone);
}

void VcpuThread::resume() {
    want(Wanted::running);
}

void VcpuThread::request_pause() {
    want(Wanted::parked);
}

void VcpuThread::request_pause(std::move_only_function<void()> task) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !working_; });
    task_ = std::move(task);
    working_ = true;
    wanted_ = Wanted::parked;
    pass_on(std::move(lock));
}

void VcpuThread::want(Wanted wanted) {
    std::unique_lock lock(mutex_);
    wanted_ = wanted;
    pass_on(std::move(lock));
}

/// A thread that runs the guest leaves it, if only for a task; one that is parked wakes, and must
/// not find the mutex held: it would sleep once more.
void VcpuThread::pass_on(std::unique_lock<std::mutex> lock) {
    ++orders_;
    if (!parked_) {
        if (wanted_ != Wanted::running || task_) {
            leave_guest();
        }
        return;
    }
    lock.unlock();
    changed_.notify_all();
}

/// In the guest or serving an exit: the flag is seen by the next entry, the signal ends the present
/// one.
void VcpuThread::leave_guest() {
    vcpu_.request_exit();
    kvm::kick(thread_.native_handle());
}

void VcpuThread::wait_parked() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return parked_.load(); });
}

bool VcpuThread::wait_parked_until(std::chrono::steady_clock::time_point deadline) {
    if (sys::wait_awake([this] { return parked_.load(); }, awake_for_park)) {
        return true;
    }
    std::unique_lock lock(mutex_);
    return changed_.wait_until(lock, deadline, [this] { return parked_.load(); });
}

void VcpuThread::begin(std::move_only_function<void()> task, Afterwards afterwards) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !working_; });
    task_ = std::move(task);
    afterwards_ = afterwards;
    working_ = true;
    pass_on(std::move(lock));
}

std::move_only_function<void()> VcpuThread::take_back() {
    const std::unique_lock lock(mutex_);
    if (!lock.owns_lock() || !task_) {
        return nullptr;
    }
    working_ = false;
    return std::exchange(task_, nullptr);
}

void VcpuThread::finish() {
    if (sys::wait_awake([this] { return !working_.load(); }, awake_for_task)) {
        return;
    }
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !working_; });
}

void VcpuThread::await_order(std::unique_lock<std::mutex>& lock) {
    const auto given = [this] { return wanted_ != Wanted::parked || task_; };
    if (std::exchange(afterwards_, Afterwards::sleep) == Afterwards::stay_awake && !given()) {
        const std::uint32_t orders = orders_;
        lock.unlock();
        [[maybe_unused]] const bool given_by_now =
            sys::wait_awake([&] { return orders_.load() != orders; }, awake_for_order);
        lock.lock();
    }
    changed_.wait(lock, given);
}

void VcpuThread::do_task(std::unique_lock<std::mutex>& lock) {
    if (!task_) {
        return;
    }
    auto task = std::exchange(task_, nullptr);
    lock.unlock();
    task();
    lock.lock();
    working_ = false;
    changed_.notify_all();
}

sys::Moment VcpuThread::parked_at() const {
    const std::scoped_lock lock(mutex_);
    return parked_at_;
}

std::optional<std::uint32_t> VcpuThread::last_cpu() const noexcept {
    const std::scoped_lock lock(mutex_);
    return last_cpu_.number();
}

ExitCounters VcpuThread::counters() const noexcept {
    return {.port = port_exits_.load(std::memory_order_relaxed),
            .memory = memory_exits_.load(std::memory_order_relaxed)};
}

void VcpuThread::body() noexcept {
    const Status accepts = kvm::accept_kicks();
    if (!accepts.has_value()) {
        environment_.exits->run_failed(vcpu_, accepts.error());
    }
    std::unique_lock lock(mutex_);
    last_cpu_ = sys::LastCpu::of_this_thread();
    for (;;) {
        await_order(lock);
        do_task(lock);
        if (wanted_ == Wanted::parked) {
            continue;
        }
        if (wanted_ == Wanted::gone) {
            return;
        }
        parked_ = false;
        vcpu_.clear_exit_request();
        lock.unlock();
        const GuestEnd end = run_guest();
        const sys::Moment left_at = environment_.clock->now();
        lock.lock();
        parked_ = true;
        parked_at_ = left_at;
        changed_.notify_all();
        if (end == GuestEnd::ended && wanted_ == Wanted::running) {
            wanted_ = Wanted::parked;
        }
    }
}

VcpuThread::GuestEnd VcpuThread::run_guest() noexcept {
    ExitCounters counters{.port = port_exits_.load(std::memory_order_relaxed),
                          .memory = memory_exits_.load(std::memory_order_relaxed)};
    if (std::exchange(stood_still_, false)) {
        discard(vcpu_.notify_paused(), "refused until the guest uses kvmclock");
    }
    environment_.first_entry->note();
    while (!environment_.ended->load(std::memory_order_acquire)) {
        const Result<kvm::Vcpu::RunEnd> end = vcpu_.run();
        if (!end.has_value()) {
            environment_.exits->run_failed(vcpu_, end.error());
            return GuestEnd::ended;
        }
        if (*end == kvm::Vcpu::RunEnd::interrupted) {
            if (vcpu_.exit_requested()) {
                return GuestEnd::paused;
            }
            continue;
        }
        const ExitServer::Next next = environment_.exits->serve(vcpu_, counters);
        port_exits_.store(counters.port, std::memory_order_relaxed);
        memory_exits_.store(counters.memory, std::memory_order_relaxed);
        if (next == ExitServer::Next::stay_stopped) {
            return GuestEnd::ended;
        }
    }
    return GuestEnd::ended;
}

} // namespace godwit::machine
