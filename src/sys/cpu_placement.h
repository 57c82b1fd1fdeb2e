#pragma once

/// Where threads run: which CPU one was on last, and keeping off some for a moment.
///
/// A kernel that wakes a thread looks for an idle CPU near its last one only. Where CPUs share no
/// cache - sockets, or the processors of a virtual machine - threads that have slept beside each
/// other are woken one behind the other there, while the CPU next to them idles.

#include <sys/types.h>

#include <sched.h>

#include <cstdint>
#include <optional>
#include <span>

namespace godwit::sys {

/// Of one thread, for the others: the CPU it was on when it last came out of the kernel or went
/// into a guest. Valid while that thread lives. Any thread.
class LastCpu {
  public:
    LastCpu() = default;
    /// Of the calling thread.
    [[nodiscard]] static LastCpu of_this_thread() noexcept;
    /// Empty where the C library or the kernel does not say.
    [[nodiscard]] std::optional<std::uint32_t> number() const noexcept;

  private:
    explicit LastCpu(const std::uint32_t* written_by_kernel)
        : written_by_kernel_(written_by_kernel) {}
    const std::uint32_t* written_by_kernel_ = nullptr; ///< In the thread's struct rseq.
};

/// The thread that makes it keeps off some CPUs until this goes, if it may run on others; else, and
/// where the system does not let it, nothing changes. Another thread may destroy it.
class StayOffCpus {
  public:
    StayOffCpus() = default;
    explicit StayOffCpus(std::span<const std::uint32_t> cpus) noexcept;
    StayOffCpus(const StayOffCpus&) = delete;
    StayOffCpus& operator=(const StayOffCpus&) = delete;
    StayOffCpus(StayOffCpus&& other) noexcept;
    StayOffCpus& operator=(StayOffCpus&& other) noexcept;
    ~StayOffCpus();

  private:
    void end() noexcept;

    pid_t thread_ = 0; ///< 0: nothing was changed.
    cpu_set_t before_{};
    cpu_set_t during_{};
};

} // namespace godwit::sys
