#include "machine/platform/platform.h"

namespace godwit::machine::platform {

Platform::Platform(Args args)
    : args_(std::move(args)), serial_line_(*args_.vm, Gsi{Serial::irq}),
      rtc_line_(*args_.vm, Gsi{Rtc::irq}), sci_line_(*args_.vm, Gsi{AcpiPm::irq}),
      ticker_(*args_.loop), reset_pulse_(args_.stop) {}

Serial::Args Platform::serial_args() {
    return {
        .line = &serial_line_, .output = args_.serial_output, .input_ready = args_.serial_ready};
}

Rtc::Args Platform::rtc_args() {
    return {.line = &rtc_line_, .clock = args_.clock, .ticks_wanted = [this](bool wanted) {
                ticker_.set_wanted(wanted);
            }};
}

AcpiPm::Args Platform::acpi_pm_args() {
    return {.line = &sci_line_, .clock = args_.clock, .stop = args_.stop};
}

ResetControl::Args Platform::reset_args() {
    return {.stop = args_.stop, .around = args_.pci_ports};
}

Result<std::unique_ptr<Platform>> Platform::create(Args args) {
    std::unique_ptr<Platform> made(new Platform(std::move(args)));
    if (made->args_.serial) {
        made->serial_ = Serial::create(made->serial_args());
    }
    made->rtc_ = Rtc::create(made->rtc_args());
    made->acpi_pm_ = AcpiPm::create(made->acpi_pm_args());
    made->reset_ = ResetControl::create(made->reset_args());
    GODWIT_TRY(made->connect());
    return made;
}

Result<std::unique_ptr<Platform>>
Platform::restore(Args args, state::SavedState& state, TimerPolicy policy) {
    std::unique_ptr<Platform> made(new Platform(std::move(args)));
    const auto take = [&state](const state::SectionType& type) { return state.take(type.id()); };
    if (made->args_.serial) {
        made->serial_ =
            GODWIT_TRY(Serial::restore(made->serial_args(), GODWIT_TRY(take(Serial::section))));
    }
    made->rtc_ = GODWIT_TRY(Rtc::restore(made->rtc_args(), GODWIT_TRY(take(Rtc::section))));
    made->acpi_pm_ = GODWIT_TRY(
        AcpiPm::restore(made->acpi_pm_args(), GODWIT_TRY(take(AcpiPm::section)), policy));
    made->reset_ = GODWIT_TRY(
        ResetControl::restore(made->reset_args(), GODWIT_TRY(take(ResetControl::section))));
    GODWIT_TRY(made->connect());
    return made;
}

Status Platform::connect() {
    AddressMap& ports = *args_.ports;
    if (serial_ != nullptr) {
        GODWIT_TRY(ports.add(Serial::port, Serial::port_bytes, *serial_));
    }
    GODWIT_TRY(ports.add(Rtc::port, Rtc::port_bytes, *rtc_));
    GODWIT_TRY(ports.add(AcpiPm::event_port, AcpiPm::port_bytes, *acpi_pm_));
    GODWIT_TRY(ports.add(ResetControl::first_port, ResetControl::port_bytes, *reset_));
    return ports.add(ResetPulse::port, 1, reset_pulse_);
}

Platform::~Platform() {
    for (const std::uint64_t port : {std::uint64_t{Serial::port},
                                     std::uint64_t{Rtc::port},
                                     std::uint64_t{AcpiPm::event_port},
                                     std::uint64_t{ResetControl::first_port},
                                     std::uint64_t{ResetPulse::port}}) {
        args_.ports->remove(port);
    }
}

std::vector<const state::StateUnit*> Platform::units() const {
    std::vector<const state::StateUnit*> units;
    if (serial_ != nullptr) {
        units.push_back(serial_.get());
    }
    units.insert(units.end(), {rtc_.get(), acpi_pm_.get(), reset_.get()});
    return units;
}

} // namespace godwit::machine::platform
