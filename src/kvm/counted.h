#pragma once

/// KVM's structures that end in an array. <linux/kvm.h> declares them with an empty member that
/// has a size in C++ (Linux 6.1, stddef.h, __DECLARE_FLEX_ARRAY), which moves the array and changes
/// the ioctl numbers; so they are declared here as the kernel has them.

#include "kvm/fam_buffer.h"

#include <linux/ioctl.h>
#include <linux/kvm.h>

#include <cstdint>

namespace godwit::kvm {

/// Head of kvm_cpuid2, kvm_msrs and kvm_irq_routing.
struct CountHeader {
    std::uint32_t count = 0;
    std::uint32_t reserved = 0;
};
static_assert(sizeof(CountHeader) == 8);

/// Head of kvm_msr_list.
struct IndexListHeader {
    std::uint32_t count = 0;
};

using CpuidBuffer = FamBuffer<CountHeader, kvm_cpuid_entry2>;
using MsrBuffer = FamBuffer<CountHeader, kvm_msr_entry>;
using MsrIndexBuffer = FamBuffer<IndexListHeader, std::uint32_t>;
using RoutingTable = FamBuffer<CountHeader, kvm_irq_routing_entry>;

/// kvm_xsave without the part that varies.
struct XsaveBase {
    std::uint32_t region[1024];
};
static_assert(sizeof(XsaveBase) == 4096);

// Numbers as in <linux/kvm.h>, with the right sizes.
inline constexpr unsigned long get_msr_index_list = _IOWR(KVMIO, 0x02, IndexListHeader);
inline constexpr unsigned long get_supported_cpuid = _IOWR(KVMIO, 0x05, CountHeader);
inline constexpr unsigned long set_gsi_routing = _IOW(KVMIO, 0x6A, CountHeader);
inline constexpr unsigned long get_msrs = _IOWR(KVMIO, 0x88, CountHeader);
inline constexpr unsigned long set_msrs = _IOW(KVMIO, 0x89, CountHeader);
inline constexpr unsigned long set_cpuid2 = _IOW(KVMIO, 0x90, CountHeader);

inline constexpr unsigned long get_xsave = _IOR(KVMIO, 0xA4, XsaveBase);
inline constexpr unsigned long set_xsave = _IOW(KVMIO, 0xA5, XsaveBase);
inline constexpr unsigned long get_xsave2 = _IOR(KVMIO, 0xCF, XsaveBase);

/// kvm_pre_fault_memory, of Linux 6.11 (Documentation/virt/kvm/api.rst, 4.143).
struct PreFaultMemory {
    std::uint64_t start = 0;
    std::uint64_t bytes = 0;
    std::uint64_t flags = 0;
    std::uint64_t padding[5]{};
};
static_assert(sizeof(PreFaultMemory) == 64);
inline constexpr int cap_pre_fault_memory = 236;
inline constexpr unsigned long pre_fault_memory = _IOWR(KVMIO, 0xD5, PreFaultMemory);

} // namespace godwit::kvm
