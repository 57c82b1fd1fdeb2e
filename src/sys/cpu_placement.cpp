#include "sys/cpu_placement.h"

#include <sys/rseq.h>

#include <unistd.h>

#include <utility>

namespace godwit::sys {

LastCpu LastCpu::of_this_thread() noexcept {
    if (__rseq_size == 0) {
        return {};
    }
    const auto* const own = reinterpret_cast<const struct rseq*>(
        static_cast<const std::byte*>(__builtin_thread_pointer()) + __rseq_offset);
    return LastCpu(&own->cpu_id);
}

std::optional<std::uint32_t> LastCpu::number() const noexcept {
    if (written_by_kernel_ == nullptr) {
        return std::nullopt;
    }
    const std::uint32_t number = __atomic_load_n(written_by_kernel_, __ATOMIC_RELAXED);
    // Beyond it are the marks of a thread that is not registered.
    return number < CPU_SETSIZE ? std::optional(number) : std::nullopt;
}

StayOffCpus::StayOffCpus(std::span<const std::uint32_t> cpus) noexcept {
    // Fails where there are more CPUs than the set holds: then it stays as it is.
    if (::sched_getaffinity(0, sizeof(before_), &before_) != 0) {
        return;
    }
    during_ = before_;
    for (const std::uint32_t cpu : cpus) {
        if (cpu < CPU_SETSIZE) {
            CPU_CLR(cpu, &during_);
        }
    }
    if (CPU_COUNT(&during_) != 0 && !CPU_EQUAL(&during_, &before_) &&
        ::sched_setaffinity(0, sizeof(during_), &during_) == 0) {
        thread_ = ::gettid();
    }
}

StayOffCpus::StayOffCpus(StayOffCpus&& other) noexcept
    : thread_(std::exchange(other.thread_, 0)), before_(other.before_), during_(other.during_) {}

StayOffCpus& StayOffCpus::operator=(StayOffCpus&& other) noexcept {
    if (this != &other) {
        end();
        thread_ = std::exchange(other.thread_, 0);
        before_ = other.before_;
        during_ = other.during_;
    }
    return *this;
}

StayOffCpus::~StayOffCpus() {
    end();
}

void StayOffCpus::end() noexcept {
    const pid_t thread = std::exchange(thread_, 0);
    cpu_set_t now;
    // What someone else has set meanwhile stands.
    if (thread != 0 && ::sched_getaffinity(thread, sizeof(now), &now) == 0 &&
        CPU_EQUAL(&now, &during_)) {
        ::sched_setaffinity(thread, sizeof(before_), &before_);
    }
}

} // namespace godwit::sys
