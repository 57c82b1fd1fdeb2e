#pragma once

/// One KVM machine: memory slots, interrupt controllers, timers, and wiring of eventfds. Order of
/// building matters for speed: memory slots before the irqchip (0.45 ms instead of 7 ms, because
/// slots then need no SRCU grace period), irqchip before PIT and vCPUs.
///
/// Thread rule: any thread; KVM locks. A VM belongs to the process that created it: its
/// descriptors are useless elsewhere. Destroying it costs some 20 ms of kernel time.

#include "base/result.h"
#include "base/units.h"
#include "kvm/counted.h"
#include "kvm/vcpu.h"
#include "sys/fd.h"

#include <linux/kvm.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace godwit::kvm {

/// One run of guest RAM and where this process maps it.
struct MemorySlot {
    std::uint32_t number = 0;
    Gpa start;
    std::uint64_t bytes = 0;
    std::byte* host = nullptr;
};

/// The interrupt controllers in the order KVM numbers them: PIC master, PIC slave, IOAPIC.
using IrqchipState = std::array<kvm_irqchip, 3>;

class Vm {
  public:
    [[nodiscard]] Status set_memory_slot(const MemorySlot& slot) const;
    /// PIC, IOAPIC and LAPICs in the kernel; then the three pages Intel hosts need below 4 GiB.
    [[nodiscard]] Status create_irqchip() const;
    /// i8254 with its port 0x61.
    [[nodiscard]] Status create_pit() const;
    [[nodiscard]] Result<Vcpu> create_vcpu(std::uint32_t id) const;

    [[nodiscard]] int extension(unsigned capability) const noexcept;

    [[nodiscard]] Result<IrqchipState> irqchips() const;
    [[nodiscard]] Status set_irqchips(const IrqchipState& state) const;
    [[nodiscard]] Result<kvm_pit_state2> pit() const;
    [[nodiscard]] Status set_pit(const kvm_pit_state2& state) const;
    [[nodiscard]] Result<kvm_clock_data> clock() const;
    [[nodiscard]] Status set_clock(const kvm_clock_data& clock) const;

    /// Replaces the whole table of interrupt routes (some 20 us, one SRCU grace period).
    [[nodiscard]] Status set_routing(const RoutingTable& table) const;
    /// Signals of `event` become interrupts on `gsi`, without this process, until `event` and its
    /// duplicates are closed.
    [[nodiscard]] Status add_irqfd(Gsi gsi, const sys::EventFd& event) const;
    /// Guest writes of any length to `address` signal `event`, without an exit.
    [[nodiscard]] Status add_ioeventfd(Gpa address, const sys::EventFd& event) const;
    void remove_ioeventfd(Gpa address, const sys::EventFd& event) const noexcept;
    enum class LineLevel : std::uint8_t { low, high };
    [[nodiscard]] Status set_irq_line(Gsi gsi, LineLevel level) const;

  private:
    friend class Kvm;
    [[nodiscard]] static Result<Vm> adopt(sys::Fd fd, std::size_t run_bytes);
    Vm(sys::Fd fd, std::size_t run_bytes) : fd_(std::move(fd)), run_bytes_(run_bytes) {}
    sys::Fd fd_;
    std::size_t run_bytes_;
};

} // namespace godwit::kvm
