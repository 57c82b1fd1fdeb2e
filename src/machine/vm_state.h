#pragma once

/// The state KVM keeps for a whole machine (section "kvm-vm"): PIC, IOAPIC, PIT, and the clock as
/// one moment in every time that matters. Control thread, at rest.

#include "base/result.h"
#include "kvm/vm.h"
#include "state/state_unit.h"
#include "sys/clock.h"

#include <cstdint>

namespace godwit::machine {

inline constexpr state::SectionType vm_section{"kvm-vm", 1};

/// One moment in the guest's kvmclock, the host's TSC and the host's CLOCK_MONOTONIC.
struct ClockMoment {
    std::uint64_t kvmclock_ns = 0;
    std::uint64_t host_tsc = 0;
    std::int64_t monotonic_ns = 0;
    bool host_tsc_exact = false; ///< KVM read kvmclock and TSC together.
};

struct VmState {
    kvm::IrqchipState irqchips{};
    kvm_pit_state2 pit{};
    ClockMoment clock;
};

[[nodiscard]] Result<VmState> read_vm_state(const kvm::Vm& vm, const sys::Clock& clock);
[[nodiscard]] state::Section encode_vm_section(const VmState& state);
[[nodiscard]] Result<VmState> parse_vm_section(const state::Section& section);

/// Sets PIC and IOAPIC, then the PIT. Before the LAPICs: what the IOAPIC delivers again on being
/// set is overwritten by them.
[[nodiscard]] Status load_interrupt_controllers(const kvm::Vm& vm, const VmState& state);

/// kvmclock as if it had never stood still since the saved moment; same host only. After the TSCs
/// of all vCPUs have been set. Exact where KVM tells the TSC with its clock, else some microseconds
/// late.
[[nodiscard]] Status continue_kvmclock(const kvm::Vm& vm,
                                       const ClockMoment& saved,
                                       const sys::Clock& clock,
                                       std::uint32_t host_tsc_khz);
/// kvmclock where it stopped.
[[nodiscard]] Status resume_kvmclock(const kvm::Vm& vm, const ClockMoment& saved);

/// What to add to every TSC offset so that the guest's TSC continues where it stopped.
[[nodiscard]] std::uint64_t frozen_tsc_offset_change(const ClockMoment& saved) noexcept;

} // namespace godwit::machine
