#pragma once

/// Serves the exits of a vCPU: port and memory accesses go to their devices, everything that ends
/// the guest becomes a stop with a reason. Called on vCPU threads, several at once.

#include "kvm/vcpu.h"
#include "machine/address_map.h"
#include "machine/stop_reason.h"

#include <cstdint>

namespace godwit::machine {

/// Counts of one vCPU, written by its thread.
struct ExitCounters {
    std::uint64_t port = 0;
    std::uint64_t memory = 0;
    std::uint64_t other = 0;
};

class ExitServer {
  public:
    /// Both maps and the sink outlive it.
    ExitServer(const AddressMap& ports, const AddressMap& memory, StopSink stop)
        : ports_(ports), memory_(memory), stop_(std::move(stop)) {}

    enum class Next : std::uint8_t { run_on, stay_stopped };
    /// Serves vcpu.exit(). After `stay_stopped` the vCPU must not enter the guest again.
    [[nodiscard]] Next serve(kvm::Vcpu& vcpu, ExitCounters& counters) const;
    /// KVM_RUN itself failed.
    void run_failed(const kvm::Vcpu& vcpu, const Error& error) const;

  private:
    void serve_port(kvm::Vcpu& vcpu) const;
    void serve_memory(kvm::Vcpu& vcpu) const;

    const AddressMap& ports_;
    const AddressMap& memory_;
    StopSink stop_;
};

} // namespace godwit::machine
