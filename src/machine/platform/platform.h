#pragma once

/// All platform devices of a machine with their interrupt lines and addresses: serial port, clock,
/// ACPI hardware, reset registers, PCI configuration ports. Control thread.

#include "machine/address_map.h"
#include "machine/kvm_bus.h"
#include "machine/platform/acpi_pm.h"
#include "machine/platform/reset_control.h"
#include "machine/platform/rtc.h"
#include "machine/platform/rtc_ticker.h"
#include "machine/platform/serial.h"
#include "machine/stop_reason.h"
#include "state/saved_state.h"

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace godwit::machine::platform {

class Platform {
  public:
    struct Args {
        const kvm::Vm* vm = nullptr;
        AddressMap* ports = nullptr;
        sys::EventLoop* loop = nullptr;
        const sys::Clock* clock = nullptr;
        StopSink stop;
        /// The PCI configuration ports; may be null.
        bus::BusDevice* pci_ports = nullptr;
        bool serial = true;
        std::function<void(std::span<const std::byte>)> serial_output;
        std::function<void()> serial_ready;
    };

    /// The platform of a machine that boots.
    [[nodiscard]] static Result<std::unique_ptr<Platform>> create(Args args);
    /// Takes its sections out of `state`.
    [[nodiscard]] static Result<std::unique_ptr<Platform>>
    restore(Args args, state::SavedState& state, TimerPolicy policy);
    Platform(const Platform&) = delete;
    Platform& operator=(const Platform&) = delete;
    /// Leaves the ports; no vCPU runs.
    ~Platform();

    void wake() { ticker_.wake(*rtc_); }
    void quiesce() { ticker_.quiesce(); }
    /// What is saved of it, in order.
    [[nodiscard]] std::vector<const state::StateUnit*> units() const;

    /// Null if the machine has none.
    [[nodiscard]] Serial* serial() noexcept { return serial_.get(); }
    [[nodiscard]] AcpiPm& acpi_pm() noexcept { return *acpi_pm_; }

  private:
    explicit Platform(Args args);
    [[nodiscard]] Serial::Args serial_args();
    [[nodiscard]] Rtc::Args rtc_args();
    [[nodiscard]] AcpiPm::Args acpi_pm_args();
    [[nodiscard]] ResetControl::Args reset_args();
    [[nodiscard]] Status connect();

    Args args_;
    KvmIrqLine serial_line_;
    KvmIrqLine rtc_line_;
    KvmIrqLine sci_line_;
    RtcTicker ticker_;
    std::unique_ptr<Serial> serial_;
    std::unique_ptr<Rtc> rtc_;
    std::unique_ptr<AcpiPm> acpi_pm_;
    std::unique_ptr<ResetControl> reset_;
    ResetPulse reset_pulse_;
};

} // namespace godwit::machine::platform
