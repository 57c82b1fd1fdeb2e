// Saved sections of the platform devices. The first byte chooses the device. What is accepted saves
// again, survives a look at every register, and is accepted again.
#include "machine/platform/acpi_pm.h"
#include "machine/platform/fake_irq_line.h"
#include "machine/platform/reset_control.h"
#include "machine/platform/rtc.h"
#include "machine/platform/serial.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace {

using namespace godwit;
using namespace godwit::machine;

class StillClock final : public sys::Clock {
  public:
    [[nodiscard]] sys::Moment now() const noexcept override {
        return sys::Moment(std::chrono::hours(1000));
    }
    [[nodiscard]] std::int64_t unix_nanoseconds() const noexcept override {
        return 1'700'000'000'000'000'000;
    }
};

const StillClock still_clock;
platform::FakeIrqLine line;

template <typename Restore>
void try_device(const state::Section& section, std::uint64_t ports, Restore restore) {
    auto device = restore(section);
    if (!device.has_value()) {
        return;
    }
    const auto saved = (*device)->save();
    if (!saved.has_value() || !restore(std::get<state::Section>(*saved)).has_value()) {
        std::abort();
    }
    for (std::uint64_t port = 0; port < ports; ++port) {
        std::array<std::byte, 1> byte{};
        (*device)->read(port, byte);
        (*device)->write(port, byte);
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) {
        return 0;
    }
    state::Section section;
    section.id = {.name = "fuzz", .instance = 0};
    section.payload.assign(reinterpret_cast<const char*>(data) + 1, size - 1);
    const StopSink no_stop = [](StopReason, const std::string&) {};
    switch (data[0] % 4) {
    case 0:
        try_device(section, platform::Serial::port_bytes, [](const state::Section& s) {
            return platform::Serial::restore({.line = &line, .output = {}, .input_ready = {}}, s);
        });
        break;
    case 1:
        try_device(section, platform::Rtc::port_bytes, [](const state::Section& s) {
            return platform::Rtc::restore(
                {.line = &line, .clock = &still_clock, .ticks_wanted = {}}, s);
        });
        break;
    case 2:
        try_device(section, platform::AcpiPm::port_bytes, [&](const state::Section& s) {
            return platform::AcpiPm::restore(
                {.line = &line, .clock = &still_clock, .stop = no_stop},
                s,
                platform::TimerPolicy::running);
        });
        break;
    default:
        try_device(section, platform::ResetControl::port_bytes, [&](const state::Section& s) {
            return platform::ResetControl::restore({.stop = no_stop, .around = nullptr}, s);
        });
        break;
    }
    return 0;
}
