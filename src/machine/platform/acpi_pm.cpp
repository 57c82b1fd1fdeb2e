#include "machine/platform/acpi_pm.h"

#include "state/acpi_pm.pb.h"
#include "state/section_codec.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace godwit::machine::platform {

namespace {
constexpr std::uint16_t power_button = 1U << 8U;
/// Bits a status or enable register has: timer, global lock, power button, sleep button, clock.
/// Only the power button is ever set; the others exist because kernels read back what they enable.
constexpr std::uint16_t event_bits = 0x0721;
constexpr std::uint16_t control_sci_enable = 1U << 0U;
constexpr std::uint16_t control_sleep_enable = 1U << 13U;
constexpr unsigned control_sleep_type_shift = 10;
constexpr std::uint16_t control_kept_bits = 0x1C06; // SLP_TYP, GBL_RLS, BM_RLD
} // namespace

std::unique_ptr<AcpiPm> AcpiPm::create(Args args) {
    return std::unique_ptr<AcpiPm>(new AcpiPm(std::move(args)));
}

Result<std::unique_ptr<AcpiPm>>
AcpiPm::restore(Args args, const state::Section& from, TimerPolicy policy) {
    const auto saved = GODWIT_TRY(state::decode_section<state::AcpiPmState>(section, from));
    if ((saved.status() & ~std::uint32_t{event_bits}) != 0 ||
        (saved.enable() & ~std::uint32_t{event_bits}) != 0 ||
        (saved.control() & ~std::uint32_t{control_kept_bits}) != control_sci_enable) {
        return state::bad_section(from, "a register has a value it cannot have");
    }
    std::unique_ptr<AcpiPm> made(new AcpiPm(std::move(args)));
    const std::scoped_lock lock(made->mutex_);
    made->status_ = static_cast<std::uint16_t>(saved.status());
    made->enable_ = static_cast<std::uint16_t>(saved.enable());
    made->control_ = static_cast<std::uint16_t>(saved.control());
    made->ticks_at_origin_ = saved.timer_ticks();
    if (policy == TimerPolicy::running) {
        const sys::Moment saved_at{sys::Nanoseconds(saved.monotonic_ns())};
        if (saved_at > made->timer_origin_) {
            return state::bad_section(from, "it was saved in the future of this host's clock");
        }
        made->timer_origin_ = saved_at;
    }
    made->update_line();
    return made;
}

Result<state::Saved> AcpiPm::save() const {
    const std::scoped_lock lock(mutex_);
    const sys::Moment now = args_.clock->now();
    state::AcpiPmState saved;
    saved.set_status(status_);
    saved.set_enable(enable_);
    saved.set_control(control_);
    saved.set_timer_ticks(ticks_at(now));
    saved.set_monotonic_ns(now.time_since_epoch().count());
    return state::encode_section(section, 0, saved);
}

std::uint64_t AcpiPm::ticks_at(sys::Moment moment) const {
    constexpr std::uint64_t nanoseconds_per_second = 1'000'000'000;
    const auto elapsed = static_cast<std::uint64_t>((moment - timer_origin_).count());
    // Seconds and rest apart, so that nothing overflows for centuries.
    return ticks_at_origin_ + elapsed / nanoseconds_per_second * timer_hz +
           elapsed % nanoseconds_per_second * timer_hz / nanoseconds_per_second;
}

void AcpiPm::read(std::uint64_t offset, std::span<std::byte> out) {
    const std::scoped_lock lock(mutex_);
    std::array<std::byte, port_bytes> registers{};
    const auto timer = static_cast<std::uint32_t>(ticks_at(args_.clock->now()));
    std::memcpy(registers.data(), &status_, sizeof(status_));
    std::memcpy(registers.data() + 2, &enable_, sizeof(enable_));
    std::memcpy(registers.data() + (control_port - event_port), &control_, sizeof(control_));
    std::memcpy(registers.data() + (timer_port - event_port), &timer, sizeof(timer));
    std::ranges::copy(std::span(registers).subspan(offset, out.size()), out.begin());
}

void AcpiPm::write(std::uint64_t offset, std::span<const std::byte> data) {
    std::uint16_t value = 0;
    std::memcpy(&value, data.data(), std::min(data.size(), sizeof(value)));
    const std::scoped_lock lock(mutex_);
    switch (offset) {
    case 0: // status: ones clear; a four-byte access goes on into the enable register
        status_ = static_cast<std::uint16_t>(status_ & ~unsigned{value});
        if (data.size() == event_bytes) {
            std::memcpy(&enable_, data.data() + 2, sizeof(enable_));
            enable_ &= event_bits;
        }
        break;
    case 1: // the power button lies in the upper byte
        status_ = static_cast<std::uint16_t>(status_ & ~(unsigned{value} << 8U));
        break;
    case 2:
        enable_ = value & event_bits;
        break;
    case 3:
        enable_ =
            static_cast<std::uint16_t>((enable_ & 0xFFU) | (unsigned{value} << 8U)) & event_bits;
        break;
    case control_port - event_port:
        write_control(value);
        break;
    default:
        break; // the timer is read-only
    }
    update_line();
}

void AcpiPm::write_control(std::uint16_t value) {
    control_ = static_cast<std::uint16_t>((value & control_kept_bits) | control_sci_enable);
    if ((value & control_sleep_enable) == 0) {
        return;
    }
    const unsigned type = (value >> control_sleep_type_shift) & 7U;
    if (type == sleep_type_off) {
        args_.stop(StopReason::powered_off, "ACPI S5");
    }
}

void AcpiPm::press_power_button() {
    const std::scoped_lock lock(mutex_);
    status_ |= power_button;
    update_line();
}

void AcpiPm::update_line() {
    args_.line->set((status_ & enable_) != 0);
}

} // namespace godwit::machine::platform
