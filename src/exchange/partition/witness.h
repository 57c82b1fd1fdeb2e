#pragma once

/// What is known about the other instance: its heartbeat, and the kernel's word that it has ended.
///
/// An instance has ended when every process that was named has, and when nobody holds the other end
/// of its lifeline: a pipe that all its processes inherit, those it starts later included. The
/// interface is what a second kernel's witness would implement too (heartbeat, and a fence that
/// resets its CPUs). Owner thread only.

#include "exchange/partition/estate.h"
#include "sys/fd.h"
#include "sys/process.h"

#include <vector>

namespace godwit::exchange::partition {

class Witness {
  public:
    Witness() = default;
    Witness(const Witness&) = delete;
    Witness& operator=(const Witness&) = delete;
    virtual ~Witness() = default;
    [[nodiscard]] virtual Liveness liveness(sys::Moment now) = 0;
    /// Kills every process of it. Its end is proven by liveness() later.
    [[nodiscard]] virtual Status fence() = 0;
};

/// A heartbeat that has not moved for so long counts as silent.
inline constexpr std::chrono::seconds silence_limit{2};

class ProcessWitness final : public Witness {
  public:
    /// `lifeline` is the read end of the instance's pipe, or invalid if it has none.
    ProcessWitness(const Region& region,
                   Side watched,
                   std::vector<sys::Process> processes,
                   sys::Fd lifeline)
        : region_(region), watched_(watched), processes_(std::move(processes)),
          lifeline_(std::move(lifeline)) {}
    [[nodiscard]] Liveness liveness(sys::Moment now) override;
    [[nodiscard]] Status fence() override;

  private:
    [[nodiscard]] bool has_ended() const;
    const Region& region_;
    Side watched_;
    std::vector<sys::Process> processes_;
    sys::Fd lifeline_;
    std::uint64_t beats_ = 0;
    sys::Moment beaten_at_;
};

} // namespace godwit::exchange::partition
