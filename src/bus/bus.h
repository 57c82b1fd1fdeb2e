#pragma once

/// What a device model sees of the machine around it, free of KVM: ranges of addresses it answers,
/// interrupt vectors it raises, doorbells it is woken by. `machine` implements them on KVM; tests
/// bring fakes.

#include "base/result.h"
#include "base/units.h"
#include "sys/fd.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

namespace godwit::bus {

/// Answers reads and writes of a range of port or memory addresses. Called on vCPU threads, several
/// at once: the device locks what it must. Accesses are 1, 2, 4 or 8 bytes, little-endian, any
/// alignment, and entirely inside the range; what makes no sense reads as ones and is ignored on
/// write.
class BusDevice {
  public:
    BusDevice() = default;
    BusDevice(const BusDevice&) = delete;
    BusDevice& operator=(const BusDevice&) = delete;
    virtual ~BusDevice() = default;
    virtual void read(std::uint64_t offset, std::span<std::byte> out) = 0;
    virtual void write(std::uint64_t offset, std::span<const std::byte> data) = 0;
};

/// Which guest addresses reach which device. Any thread; changes are rare (BAR moves). A device may
/// call add() and remove() from inside its own read() or write(), with its locks held: an
/// implementation holds no lock of its own while it calls a device. A call that was on its way may
/// therefore still arrive just after remove(); the device lives on, so this does no harm.
class AddressSpace {
  public:
    AddressSpace() = default;
    AddressSpace(const AddressSpace&) = delete;
    AddressSpace& operator=(const AddressSpace&) = delete;
    virtual ~AddressSpace() = default;
    /// `device` outlives its range. already_exists if the range overlaps another.
    [[nodiscard]] virtual Status
    add(std::uint64_t start, std::uint64_t bytes, BusDevice& device) = 0;
    virtual void remove(std::uint64_t start) = 0;
};

struct MsiMessage {
    std::uint64_t address = 0;
    std::uint32_t data = 0;
    friend auto operator<=>(const MsiMessage&, const MsiMessage&) = default;
};

/// One MSI-X vector of a device: an eventfd the kernel turns into an interrupt (irqfd).
/// Thread rule: signal() any thread; the rest under the device's lock.
class MsiVector {
  public:
    MsiVector() = default;
    MsiVector(const MsiVector&) = delete;
    MsiVector& operator=(const MsiVector&) = delete;
    virtual ~MsiVector() = default;
    /// Where the interrupt goes; takes effect before it returns.
    [[nodiscard]] virtual Status route(const MsiMessage& message) = 0;
    /// Disconnects the vector (masked or never programmed): signals are kept by the caller as
    /// pending.
    virtual void unroute() = 0;
    virtual void signal() noexcept = 0;
};

class MsiRouter {
  public:
    MsiRouter() = default;
    MsiRouter(const MsiRouter&) = delete;
    MsiRouter& operator=(const MsiRouter&) = delete;
    virtual ~MsiRouter() = default;
    [[nodiscard]] virtual Result<std::unique_ptr<MsiVector>> create_vector() = 0;
};

/// Guest writes to an address that only wake a thread (ioeventfd): no exit to user space.
class DoorbellRegistrar {
  public:
    DoorbellRegistrar() = default;
    DoorbellRegistrar(const DoorbellRegistrar&) = delete;
    DoorbellRegistrar& operator=(const DoorbellRegistrar&) = delete;
    virtual ~DoorbellRegistrar() = default;
    /// An eventfd for add(). One made here may have its place in the kernel already.
    [[nodiscard]] virtual Result<sys::EventFd> create_event() { return sys::EventFd::create(); }
    /// A write of any length at `address` signals `event`. The pair is removed by remove().
    [[nodiscard]] virtual Status add(Gpa address, const sys::EventFd& event) = 0;
    virtual void remove(Gpa address, const sys::EventFd& event) noexcept = 0;
};

/// A level-triggered line of the interrupt controller (serial port, SCI, RTC). Any thread.
class IrqLine {
  public:
    IrqLine() = default;
    IrqLine(const IrqLine&) = delete;
    IrqLine& operator=(const IrqLine&) = delete;
    virtual ~IrqLine() = default;
    virtual void set(bool asserted) noexcept = 0;
};

} // namespace godwit::bus
