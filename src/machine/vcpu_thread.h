#pragma once

/// A vCPU and the thread that runs it.
///
///     parked --resume()--> running --request_pause()--> (leaves the guest) --> parked
///
/// The thread parks only when KVM_RUN said "interrupted", that is with every exit served and
/// completed, or after an exit that ends the guest. Parked, its vCPU belongs to the control
/// thread, which may also have the thread itself work on it (begin(), finish()): all vCPUs at once,
/// and without moving them to another processor. The calls here are the control thread's, except
/// request_pause(), which is any thread's.

#include "kvm/vcpu.h"
#include "machine/vcpu_exits.h"
#include "sys/clock.h"
#include "sys/cpu_placement.h"

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

namespace godwit::machine {

/// The moment the first vCPU of a machine entered the guest after the last start. Any thread.
class FirstEntry {
  public:
    explicit FirstEntry(const sys::Clock& clock) : clock_(clock) {}
    void reset() noexcept { nanoseconds_.store(0, std::memory_order_release); }
    void note() noexcept;
    /// The epoch of the clock while nobody has entered.
    [[nodiscard]] sys::Moment at() const noexcept;

  private:
    const sys::Clock& clock_;
    std::atomic<std::int64_t> nanoseconds_{0};
};

class VcpuThread {
  public:
    /// What every vCPU of a machine shares; outlives the thread.
    struct Environment {
        const ExitServer* exits = nullptr;
        const sys::Clock* clock = nullptr;
        FirstEntry* first_entry = nullptr;
        /// Set once the guest has ended: no vCPU enters again.
        const std::atomic<bool>* ended = nullptr;
    };

    /// Starts the thread, parked.
    [[nodiscard]] static Result<std::unique_ptr<VcpuThread>> create(kvm::Vcpu vcpu,
                                                                    Environment environment);
    VcpuThread(const VcpuThread&) = delete;
    VcpuThread& operator=(const VcpuThread&) = delete;
    /// Leaves the guest and joins.
    ~VcpuThread();

    void resume();
    /// Does not wait.
    void request_pause();
    /// The same, and has the thread do `task` as begin() would once it has left the guest.
    void request_pause(std::move_only_function<void()> task);
    /// Waits until the thread is parked; a pause must have been requested.
    void wait_parked();
    /// False if it is not by `deadline`.
    [[nodiscard]] bool wait_parked_until(std::chrono::steady_clock::time_point deadline);
    /// When it last left the guest to park.
    [[nodiscard]] sys::Moment parked_at() const;
    /// What the thread does when a task is done and nothing else is wanted.
    enum class Afterwards : std::uint8_t {
        sleep,
        stay_awake, ///< For a while: the next order comes soon.
    };
    /// Has the thread run `task`, which may use its vCPU. A vCPU in the guest leaves it for that
    /// and enters it again afterwards, unless a pause was requested before. Waits for a task given
    /// before; what it refers to lives until finish() has returned.
    void begin(std::move_only_function<void()> task, Afterwards afterwards = Afterwards::sleep);
    /// A task that has not begun, which the thread then does not do; else an empty function.
    [[nodiscard]] std::move_only_function<void()> take_back();
    /// Waits for the task's end.
    void finish();
    /// At the next resume, tells the guest's watchdogs that it stood still. At rest only.
    void tell_it_stood_still() noexcept { stood_still_ = true; }

    /// The CPU that its thread was on last, as far as that is known. Any thread.
    [[nodiscard]] std::optional<std::uint32_t> last_cpu() const noexcept;

    /// At rest only.
    [[nodiscard]] kvm::Vcpu& vcpu() noexcept { return vcpu_; }
    [[nodiscard]] const kvm::Vcpu& vcpu() const noexcept { return vcpu_; }
    /// Racy while running, meant for people.
    [[nodiscard]] ExitCounters counters() const noexcept;

  private:
    enum class Wanted : std::uint8_t { parked, running, gone };
    VcpuThread(kvm::Vcpu vcpu, Environment environment)
        : vcpu_(std::move(vcpu)), environment_(environment) {}
    void body() noexcept;
    enum class GuestEnd : std::uint8_t { paused, ended };
    [[nodiscard]] GuestEnd run_guest() noexcept;
    void want(Wanted wanted);
    void pass_on(std::unique_lock<std::mutex> lock);
    void leave_guest();
    void await_order(std::unique_lock<std::mutex>& lock);
    void do_task(std::unique_lock<std::mutex>& lock);

    kvm::Vcpu vcpu_;
    Environment environment_;
    std::atomic<std::uint64_t> port_exits_{0};
    std::atomic<std::uint64_t> memory_exits_{0};

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    Wanted wanted_ = Wanted::parked;            ///< Guarded by mutex_.
    std::atomic<bool> parked_{true};            ///< Written under mutex_.
    bool stood_still_ = false;                  ///< Of whoever has the vCPU.
    std::move_only_function<void()> task_;      ///< Guarded by mutex_.
    std::atomic<bool> working_{false};          ///< A task waits or runs. Written under mutex_.
    std::atomic<std::uint32_t> orders_{0};      ///< How many were given. Written under mutex_.
    Afterwards afterwards_ = Afterwards::sleep; ///< Guarded by mutex_.
    sys::Moment parked_at_;                     ///< Guarded by mutex_.
    sys::LastCpu last_cpu_;                     ///< Guarded by mutex_.

    std::jthread thread_; ///< Last: it uses everything above.
};

} // namespace godwit::machine
