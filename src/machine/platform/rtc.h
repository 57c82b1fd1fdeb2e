#pragma once

/// The PC's clock and NVRAM (Motorola MC146818A data sheet): time from the host in UTC plus an
/// offset the guest may set, alarm and update interrupts; no periodic interrupt (the kernel makes
/// its own). Any thread; locked by itself. Time does not pass by itself: advance() is called by
/// whoever owns a timer, while ticks_wanted said so.

#include "bus/bus.h"
#include "state/state_unit.h"
#include "sys/clock.h"

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>

namespace godwit::machine::platform {

class Rtc final : public bus::BusDevice, public state::StateUnit {
  public:
    static constexpr state::SectionType section{"rtc", 1};
    static constexpr std::uint16_t port = 0x70;
    static constexpr std::uint16_t port_bytes = 2;
    static constexpr std::uint32_t irq = 8;
    static constexpr std::uint8_t century_register = 0x32;

    struct Args {
        bus::IrqLine* line = nullptr;
        const sys::Clock* clock = nullptr;
        /// Alarm or update interrupts were switched on (true) or off: advance() is needed once a
        /// second or not at all. Called under the lock; must only hand the news on.
        std::function<void(bool wanted)> ticks_wanted;
    };

    [[nodiscard]] static std::unique_ptr<Rtc> create(Args args);
    [[nodiscard]] static Result<std::unique_ptr<Rtc>> restore(Args args,
                                                              const state::Section& from);

    void read(std::uint64_t offset, std::span<std::byte> out) override;
    void write(std::uint64_t offset, std::span<const std::byte> data) override;

    /// Raises the interrupts of the seconds that have begun since the last call.
    void advance();

    [[nodiscard]] state::SectionType section_type() const override { return section; }
    [[nodiscard]] state::SectionId section_id() const override { return section.id(); }
    [[nodiscard]] Result<state::Saved> save() const override;
    [[nodiscard]] std::string save_blocker() const override { return {}; }

  private:
    static constexpr std::size_t register_count = 128;
    explicit Rtc(Args args);
    [[nodiscard]] std::uint8_t read_register();
    void write_register(std::uint8_t value);
    void write_control(std::uint8_t value);
    [[nodiscard]] std::int64_t guest_seconds() const;
    void registers_from_time(std::int64_t seconds);
    [[nodiscard]] std::int64_t time_from_registers() const;
    [[nodiscard]] std::uint8_t encode(unsigned value) const;
    [[nodiscard]] unsigned decode(std::uint8_t value) const;
    [[nodiscard]] bool alarm_due(std::int64_t seconds) const;
    [[nodiscard]] bool clock_stopped() const;
    void update_line();
    void tell_ticks_wanted();

    Args args_;
    mutable std::mutex mutex_;
    // All guarded by mutex_.
    std::uint8_t index_ = 0;
    std::array<std::uint8_t, register_count> registers_{};
    std::int64_t offset_seconds_ = 0;
    std::int64_t last_second_ = 0;
};

} // namespace godwit::machine::platform
