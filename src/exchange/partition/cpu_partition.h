#pragma once

/// The CPUs of one hypervisor instance, enforced by what the host has: a cpuset partition of cgroup
/// v2, a cpuset of v1, or each thread's affinity. It never fails for want of a cgroup: it falls
/// back and says why, and the report repeats it. What CPUs an instance may use is decided by the
/// tokens in the shared region; this carries it out. Owner thread only.

#include "base/result.h"
#include "exchange/partition/cpu_set.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace godwit::exchange::partition {

enum class CpuMechanism : std::uint8_t {
    cgroup2,  ///< cpuset.cpus in the unified hierarchy, an isolated partition where it may be one.
    cgroup1,  ///< The cpuset hierarchy.
    affinity, ///< sched_setaffinity(2) for every thread; children inherit it, nothing enforces it.
};
[[nodiscard]] std::string_view name_of(CpuMechanism mechanism) noexcept;

/// Where hierarchies are mounted; tests bring folders of their own.
struct CpuRoots {
    /// Tried in order; the one whose cgroup.controllers lists cpuset is used.
    std::vector<std::string> unified{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
    std::string cpuset_v1 = "/sys/fs/cgroup/cpuset";
};

class CpuPartition {
  public:
    /// A partition called `name` (letters, digits, '-') of these CPUs, which are not none. An
    /// existing one of that name is taken over.
    [[nodiscard]] static Result<CpuPartition>
    create(const std::string& name, const CpuSet& cpus, const CpuRoots& roots = {});
    CpuPartition(CpuPartition&&) noexcept;
    CpuPartition& operator=(CpuPartition&&) noexcept;
    CpuPartition(const CpuPartition&) = delete;
    CpuPartition& operator=(const CpuPartition&) = delete;
    /// Removes the cgroup if nobody is left in it.
    ~CpuPartition();

    /// Puts a process with all its threads into the partition; later children stay in it.
    [[nodiscard]] Status add_process(std::int32_t pid);
    /// Changes the CPUs, for the processes that are in it as well.
    [[nodiscard]] Status set_cpus(const CpuSet& cpus);

    [[nodiscard]] const CpuSet& cpus() const noexcept { return cpus_; }
    [[nodiscard]] CpuMechanism mechanism() const noexcept { return mechanism_; }
    /// Why no better mechanism is used, for the report; empty if nothing could be better.
    [[nodiscard]] const std::string& note() const noexcept { return note_; }
    /// Removes what an instance has left under this name; who is still in it goes to the parent, so
    /// may run wherever that may. Nothing if there is nothing.
    static void remove_left(const std::string& name, const CpuRoots& roots = {}) noexcept;
    /// The partitions a process is in, by their names, of those whose name starts with `prefix`.
    [[nodiscard]] static std::vector<std::string> names_of(std::int32_t pid,
                                                           std::string_view prefix);

  private:
    CpuPartition() = default;
    [[nodiscard]] Status try_cgroup2(const std::string& name, const CpuRoots& roots);
    [[nodiscard]] Status try_cgroup1(const std::string& name, const CpuRoots& roots);
    void remove() noexcept;

    CpuMechanism mechanism_ = CpuMechanism::affinity;
    std::string folder_; ///< Of the cgroup; empty with affinity.
    std::string note_;
    CpuSet cpus_;
    std::vector<std::int32_t> processes_; ///< With affinity: who is to be moved by set_cpus().
};

/// The CPUs a process may run on now, over all its threads.
[[nodiscard]] Result<CpuSet> allowed_cpus(std::int32_t pid);

} // namespace godwit::exchange::partition
