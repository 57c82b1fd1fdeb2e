#pragma once

/// Where a successor waits until it has proven that it holds the machine: a confinement
/// (sys/confinement.h) of which godwitd is the orchestrator. Calls the successor may not make come
/// here, are refused, written down and told (requirements HR-1, HR-2, HR-3, HR-8).
///
/// One object per successor. Control thread only.

#include "base/result.h"
#include "control/json_text.h"
#include "sys/confinement.h"
#include "sys/event_loop.h"
#include "sys/refusal.h"

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace godwit::control {

/// What happens on a host that does not let a process be confined.
enum class PartitionPolicy : std::uint8_t {
    require, ///< No exchange.
    prefer,  ///< The successor is an ordinary process; the report says so.
    off,     ///< It always is.
};
[[nodiscard]] std::string_view name_of(PartitionPolicy policy) noexcept;
/// invalid_argument listing the names.
[[nodiscard]] Result<PartitionPolicy> partition_policy_named(std::string_view name);

/// Calls that are written down one by one; further ones are only counted.
inline constexpr std::size_t refusals_listed_max = 16;

/// What was refused, in words: "open_by_handle_at", "write to memory at 0x7f...".
[[nodiscard]] std::string describe(const sys::Refusal& refusal);
/// The system calls a VMM needs in all its life, as a filter. Made once per process.
[[nodiscard]] Result<std::vector<sock_filter>> vmm_filter();

class ServicePartition {
  public:
    /// Told what was refused; not more than refusals_listed_max times.
    using Watcher = std::function<void(const std::string& what)>;

    struct Started {
        sys::Process process;
        std::unique_ptr<ServicePartition> partition;
    };
    /// Starts a program confined, under a user of its own where we may give it one. unsupported if
    /// the host refuses; `seed` makes the user another one for each.
    [[nodiscard]] static Result<Started> start(sys::EventLoop& loop,
                                               const sys::SpawnOptions& options,
                                               std::uint32_t seed,
                                               Watcher watcher);
    ServicePartition(const ServicePartition&) = delete;
    ServicePartition& operator=(const ServicePartition&) = delete;
    ~ServicePartition();

    /// For the report of the exchange. Takes what is still waiting to be read.
    [[nodiscard]] Json report();
    /// The successor has left: it sees the host again.
    void left() noexcept { left_ = true; }
    [[nodiscard]] bool has_left() const noexcept { return left_; }

  private:
    ServicePartition(unsigned uid, sys::Fd refusals, Watcher watcher)
        : uid_(uid), refusals_(std::move(refusals)), watcher_(std::move(watcher)) {}
    [[nodiscard]] bool take_refusal();
    void serve(std::uint32_t events);

    const unsigned uid_;
    sys::Fd refusals_;
    Watcher watcher_;
    std::vector<std::string> listed_;
    std::uint64_t refused_ = 0;
    bool left_ = false;
    sys::EventLoop::Handle watch_;
};

/// The same key of a report where there was no partition, and why.
[[nodiscard]] Json report_without_partition(std::string_view reason);

} // namespace godwit::control
