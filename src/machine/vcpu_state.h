#pragma once

/// A vCPU's state (VcpuRecord): reading all of it from KVM and setting it in the order KVM
/// needs (requirement X-1). Control thread, vCPU at rest. Saving makes some ten ioctls and no
/// decisions: which MSRs this kernel really gives is found out beforehand.

#include "base/result.h"
#include "kvm/vcpu.h"
#include "machine/vcpu_record.h"

#include <cstdint>
#include <span>
#include <vector>

namespace godwit::machine {

/// What the vCPUs of one machine have in common on this host.
struct VcpuStateTraits {
    /// MSRs that can be read: those KVM lists, in its order, and MTRRs and machine check banks,
    /// which it has but does not list; without those saved otherwise (the TSC).
    std::vector<std::uint32_t> msr_indices;
    /// Those that are 0 in a new vCPU, sorted: a 0 need not be set again.
    std::vector<std::uint32_t> zero_when_new;
    /// The kernel offers the TSC offset as an attribute; else the TSC itself is set.
    bool has_tsc_offset = false;
    std::uint32_t host_tsc_khz = 0;
    std::uint32_t guest_tsc_khz = 0; ///< What the vCPUs run at: the host's, until a load.
};

/// Tries every MSR of `listed` once on a vCPU that has its CPUID.
[[nodiscard]] Result<VcpuStateTraits> probe_vcpu(const kvm::Vcpu& vcpu,
                                                 std::span<const std::uint32_t> listed);

[[nodiscard]] Result<VcpuRecord> save_vcpu(const kvm::Vcpu& vcpu,
                                           const VcpuStateTraits& traits,
                                           std::span<const kvm_cpuid_entry2> cpuid);

struct VcpuLoad {
    const VcpuStateTraits* traits = nullptr;
    /// CPUID the vCPU has been given by the build; it is set again only if the saved one differs.
    std::span<const kvm_cpuid_entry2> cpuid;
    /// Added to the saved TSC offset: 0 where the TSC never stood still.
    std::uint64_t tsc_offset_change = 0;
    /// What preload_vcpu() has set before; null if nothing: only what differs is set again.
    const VcpuRecord* preloaded = nullptr;
};

/// Everything that can be checked without touching the vCPU: sizes, CPU features, TSC frequency.
[[nodiscard]] Status
check_vcpu(const VcpuRecord& record, const kvm::Vcpu& vcpu, const VcpuLoad& load);
/// What of a vCPU's state may be set long before the rest, while the guest still runs elsewhere:
/// whatever does nothing before the first entry. `record` may be out of date by then.
[[nodiscard]] Status
preload_vcpu(const VcpuRecord& record, const kvm::Vcpu& vcpu, const VcpuLoad& load);
[[nodiscard]] Status
load_vcpu(const VcpuRecord& record, const kvm::Vcpu& vcpu, const VcpuLoad& load);

} // namespace godwit::machine
