#pragma once

/// One KVM vCPU: running it, and everything of its state that KVM knows (requirement X-1).
///
/// Thread rule: run() and the state calls on the vCPU's thread, or on any one thread while it is at
/// rest (KVM serialises, and would make a second caller wait until run() returns). request_exit()
/// and the kick of vcpu_kick.h: any thread.

#include "base/result.h"
#include "base/units.h"
#include "kvm/counted.h"
#include "sys/fd.h"
#include "sys/mapping.h"

#include <linux/kvm.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace godwit::kvm {

/// What this kernel's vCPUs offer.
struct VcpuTraits {
    bool has_sregs2 = false;
    bool has_xsave2 = false;
    std::size_t xsave_bytes = sizeof(XsaveBase);
};

class Vcpu {
  public:
    /// How a run ended: with an exit to serve (see exit()), or because request_exit() or a signal
    /// ended it. `interrupted` means that nothing is pending: registers may be read.
    enum class RunEnd : std::uint8_t { exit, interrupted };
    [[nodiscard]] Result<RunEnd> run() noexcept;
    /// The kernel's description of the last exit. Its data are the guest's: hostile.
    [[nodiscard]] kvm_run& exit() noexcept { return *run_; }
    /// Data of a port access (KVM_EXIT_IO): size * count bytes; empty if the kernel's numbers do
    /// not fit the mapping.
    [[nodiscard]] std::span<std::byte> io_data() noexcept;

    /// While set, run() completes the pending exit and returns `interrupted` at once. A vCPU that
    /// is in the guest also needs a kick.
    void request_exit() noexcept;
    void clear_exit_request() noexcept;
    [[nodiscard]] bool exit_requested() const noexcept;

    [[nodiscard]] std::uint32_t id() const noexcept { return id_; }
    [[nodiscard]] const VcpuTraits& traits() const noexcept { return traits_; }

    /// Fills the second-level tables for a range of guest memory, as if the guest had touched it.
    /// Needs cap_pre_fault_memory of the machine, which only hardware with such tables has. At
    /// rest.
    [[nodiscard]] Status pre_fault(Gpa start, std::uint64_t bytes) const;

    [[nodiscard]] Status set_cpuid(std::span<const kvm_cpuid_entry2> entries) const;

    [[nodiscard]] Result<kvm_regs> regs() const;
    [[nodiscard]] Status set_regs(const kvm_regs& regs) const;
    /// Where the kernel has no SREGS2, the older form is converted; the interrupt it carries is
    /// also in the vCPU events.
    [[nodiscard]] Result<kvm_sregs2> sregs() const;
    [[nodiscard]] Status set_sregs(const kvm_sregs2& sregs) const;
    [[nodiscard]] Result<kvm_xcrs> xcrs() const;
    [[nodiscard]] Status set_xcrs(const kvm_xcrs& xcrs) const;
    /// `out` has traits().xsave_bytes bytes.
    [[nodiscard]] Status xsave(std::span<std::byte> out) const;
    /// At most traits().xsave_bytes bytes; what is missing counts as zero.
    [[nodiscard]] Status set_xsave(std::span<const std::byte> area) const;
    [[nodiscard]] Result<kvm_lapic_state> lapic() const;
    [[nodiscard]] Status set_lapic(const kvm_lapic_state& lapic) const;
    [[nodiscard]] Result<kvm_vcpu_events> events() const;
    [[nodiscard]] Status set_events(const kvm_vcpu_events& events) const;
    [[nodiscard]] Result<kvm_mp_state> mp_state() const;
    [[nodiscard]] Status set_mp_state(const kvm_mp_state& mp_state) const;
    [[nodiscard]] Result<kvm_debugregs> debug_registers() const;
    [[nodiscard]] Status set_debug_registers(const kvm_debugregs& registers) const;

    /// Reads the entries' indices in order; returns how many were read before the first refusal.
    [[nodiscard]] Result<std::size_t> read_msrs(MsrBuffer& msrs) const;
    /// Writes from the first entry on; returns how many were written before the first refusal.
    [[nodiscard]] Result<std::size_t> write_msrs(const MsrBuffer& msrs) const;

    [[nodiscard]] Result<std::uint32_t> tsc_khz() const;
    /// Needs TSC scaling, unless it is the host's own frequency.
    [[nodiscard]] Status set_tsc_khz(std::uint32_t khz) const;
    /// Guest TSC minus host TSC, modulo 2^64; unsupported if the kernel has not the attribute.
    [[nodiscard]] Result<std::uint64_t> tsc_offset() const;
    [[nodiscard]] Status set_tsc_offset(std::uint64_t offset) const;
    /// Tells the guest's watchdogs that it stood still (KVM_KVMCLOCK_CTRL). EINVAL as long as the
    /// guest has not switched kvmclock on.
    [[nodiscard]] Status notify_paused() const;

  private:
    friend class Vm;
    [[nodiscard]] static Result<Vcpu>
    adopt(sys::Fd fd, std::uint32_t id, std::size_t run_bytes, VcpuTraits traits);
    Vcpu(sys::Fd fd, sys::MappedRegion mapping, std::uint32_t id, VcpuTraits traits)
        : fd_(std::move(fd)), mapping_(std::move(mapping)),
          run_(reinterpret_cast<kvm_run*>(mapping_.data())), id_(id), traits_(traits) {}

    sys::Fd fd_;
    sys::MappedRegion mapping_;
    kvm_run* run_;
    std::uint32_t id_;
    VcpuTraits traits_;
};

} // namespace godwit::kvm
