#pragma once

/// The host's KVM: what it can do, and the machines made from it. Thread rule: any thread after
/// open(). The descriptor belongs to this object; machines live on without it.

#include "base/result.h"
#include "kvm/vm.h"
#include "sys/fd.h"

#include <linux/kvm.h>

#include <cstdint>
#include <string>
#include <vector>

namespace godwit::kvm {

using CpuidEntries = std::vector<kvm_cpuid_entry2>;

class Kvm {
  public:
    /// Opens the device and checks the API version and every capability Godwit needs. The error
    /// says what to do: no device, no permission, or the names of what is missing.
    [[nodiscard]] static Result<Kvm> open(const std::string& path = "/dev/kvm");

    /// KVM_CHECK_EXTENSION; 0 where unknown.
    [[nodiscard]] int extension(unsigned capability) const noexcept;
    [[nodiscard]] Result<CpuidEntries> supported_cpuid() const;
    /// The MSRs KVM says belong to a vCPU's state (KVM_GET_MSR_INDEX_LIST).
    [[nodiscard]] Result<std::vector<std::uint32_t>> msr_indices() const;
    [[nodiscard]] Result<Vm> create_vm() const;

  private:
    Kvm(sys::Fd fd, std::size_t run_bytes) : fd_(std::move(fd)), run_bytes_(run_bytes) {}
    sys::Fd fd_;
    std::size_t run_bytes_;
};

} // namespace godwit::kvm
