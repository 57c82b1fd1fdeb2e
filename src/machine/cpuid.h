#pragma once

/// The processor a guest sees: what the host's KVM supports, minus what cannot be carried to
/// another VMM or host (nested virtualization, performance counters, SGX, tracing, AMX), plus what
/// a virtual machine has (hypervisor bit, x2APIC, topology). Pure functions.

#include "base/result.h"
#include "kvm/kvm.h"

#include <cstdint>
#include <span>

namespace godwit::machine {

struct CpuidOptions {
    std::uint32_t vcpus = 1;
    /// KVM_CAP_TSC_DEADLINE_TIMER.
    bool tsc_deadline_timer = false;
};

/// The entries of vCPU `index`: `supported` (KVM_GET_SUPPORTED_CPUID) filtered, with its own APIC
/// id and a topology of one socket with one thread per core. Deterministic, sorted by leaf and
/// index.
[[nodiscard]] kvm::CpuidEntries
guest_cpuid(const kvm::CpuidEntries& supported, const CpuidOptions& options, std::uint32_t index);

/// What the host's KVM supports. The fault "machine.cpuid.without:NAME" takes a feature away, for
/// tests of what happens on a poorer host (requirement HR-7).
[[nodiscard]] Result<kvm::CpuidEntries> supported_cpuid(const kvm::Kvm& kvm);

/// What this build would give the first vCPU of a machine of several on this host.
[[nodiscard]] Result<kvm::CpuidEntries> offered_cpuid();

/// Whether a guest that was given `saved` may run where guests are given `offered`: unsupported,
/// naming leaf, register, bits and their names, if it has a feature this host has not.
[[nodiscard]] Status check_cpuid(std::span<const kvm_cpuid_entry2> saved,
                                 std::span<const kvm_cpuid_entry2> offered);

} // namespace godwit::machine
