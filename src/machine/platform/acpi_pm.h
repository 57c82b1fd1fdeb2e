#pragma once

/// ACPI fixed hardware (ACPI 6.4, 4.8): PM1 event and control registers, the PM timer, the power
/// button and switching off. Always in ACPI mode. Any thread; locked by itself.

#include "bus/bus.h"
#include "machine/stop_reason.h"
#include "state/state_unit.h"
#include "sys/clock.h"

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>

namespace godwit::machine::platform {

/// What happened to the clock between saving and restoring a timer.
enum class TimerPolicy : std::uint8_t {
    running, ///< Same host: the time between counts.
    frozen,  ///< It continues where it stopped.
};

class AcpiPm final : public bus::BusDevice, public state::StateUnit {
  public:
    static constexpr state::SectionType section{"acpi-pm", 1};
    static constexpr std::uint16_t event_port = 0x600;
    static constexpr std::uint8_t event_bytes = 4;
    static constexpr std::uint16_t control_port = 0x604;
    static constexpr std::uint8_t control_bytes = 2;
    static constexpr std::uint16_t timer_port = 0x608;
    static constexpr std::uint8_t timer_bytes = 4;
    static constexpr std::uint16_t port_bytes = 12; ///< From event_port.
    static constexpr std::uint32_t irq = 9;
    static constexpr std::uint64_t timer_hz = 3'579'545;
    static constexpr std::uint8_t sleep_type_off = 5; ///< \_S5 in dsdt.asl.

    struct Args {
        bus::IrqLine* line = nullptr;
        const sys::Clock* clock = nullptr;
        StopSink stop;
    };
    [[nodiscard]] static std::unique_ptr<AcpiPm> create(Args args);
    [[nodiscard]] static Result<std::unique_ptr<AcpiPm>>
    restore(Args args, const state::Section& from, TimerPolicy policy);

    void read(std::uint64_t offset, std::span<std::byte> out) override;
    void write(std::uint64_t offset, std::span<const std::byte> data) override;

    void press_power_button();

    [[nodiscard]] state::SectionType section_type() const override { return section; }
    [[nodiscard]] state::SectionId section_id() const override { return section.id(); }
    [[nodiscard]] Result<state::Saved> save() const override;
    [[nodiscard]] std::string save_blocker() const override { return {}; }

  private:
    explicit AcpiPm(Args args) : args_(std::move(args)), timer_origin_(args_.clock->now()) {}
    [[nodiscard]] std::uint64_t ticks_at(sys::Moment moment) const;
    void write_control(std::uint16_t value);
    void update_line();

    Args args_;
    mutable std::mutex mutex_;
    // All guarded by mutex_.
    std::uint16_t status_ = 0;
    std::uint16_t enable_ = 0;
    std::uint16_t control_ = 1; ///< SCI_EN
    sys::Moment timer_origin_;  ///< When the timer showed ticks_at_origin_.
    std::uint64_t ticks_at_origin_ = 0;
};

} // namespace godwit::machine::platform
