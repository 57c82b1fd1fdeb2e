#pragma once

/// A vCPU's state as values (section "vcpu"), apart from the KVM calls that read and set it. KVM's
/// structures are kept as they are: they are the kernel's ABI. A value.

#include "base/result.h"
#include "state/state_unit.h"

#include <linux/kvm.h>

#include <cstdint>
#include <string>
#include <vector>

namespace godwit::machine {

inline constexpr state::SectionType vcpu_section{"vcpu", 1};

struct VcpuRecord {
    kvm_mp_state mp_state{};
    kvm_regs regs{};
    kvm_sregs2 sregs{};
    kvm_xcrs xcrs{};
    std::string xsave; ///< As long as the source's KVM says.
    kvm_debugregs debug_registers{};
    std::vector<kvm_msr_entry> msrs;
    kvm_lapic_state lapic{};
    kvm_vcpu_events events{};
    std::uint32_t tsc_khz = 0;
    std::uint64_t tsc_offset = 0; ///< The guest's TSC minus the host's.
    std::vector<kvm_cpuid_entry2> cpuid;
};

[[nodiscard]] state::Section encode_vcpu_section(const VcpuRecord& record, std::uint32_t vcpu);
/// Checks lengths and limits; what the values mean is for KVM to judge.
[[nodiscard]] Result<VcpuRecord> parse_vcpu_section(const state::Section& section);

} // namespace godwit::machine
