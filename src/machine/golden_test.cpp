/// Golden files of what a machine saves besides PCI and virtio; see state/testing/golden.h.

#include "machine/machine.h"
#include "machine/platform/acpi_pm.h"
#include "machine/platform/fake_irq_line.h"
#include "machine/platform/reset_control.h"
#include "machine/platform/rtc.h"
#include "machine/platform/serial.h"
#include "machine/vcpu_record.h"
#include "machine/vm_state.h"
#include "state/acpi_pm.pb.h"
#include "state/reset_control.pb.h"
#include "state/rtc.pb.h"
#include "state/section_codec.h"
#include "state/serial.pb.h"
#include "state/testing/golden.h"

#include <cstring>

namespace godwit::machine {
namespace {

using platform::AcpiPm;
using platform::ResetControl;
using platform::Rtc;
using platform::Serial;
using state::testing::check_goldens;

/// The clock of a host that has been up for an hour.
class StillClock final : public sys::Clock {
  public:
    [[nodiscard]] sys::Moment now() const noexcept override {
        return sys::Moment(std::chrono::hours(1));
    }
    [[nodiscard]] std::int64_t unix_nanoseconds() const noexcept override {
        return 1'700'000'000'000'000'000;
    }
};

struct GoldenTest : ::testing::Test {
    /// Saves what `restore` makes of a section.
    template <typename Restore>
    static state::testing::Resave resave(Restore restore) {
        return [restore](const state::Section& section) -> Result<state::Section> {
            const auto unit = GODWIT_TRY(restore(section));
            return std::get<state::Section>(GODWIT_TRY(unit->save()));
        };
    }
    platform::FakeIrqLine line;
    StillClock clock;
    StopSink no_stop = [](StopReason, std::string) {};
};

TEST_F(GoldenTest, every_section_of_a_machine_has_one) {
    for (const state::SectionType& type : Machine::known_sections()) {
        const auto goldens = state::testing::read_goldens(type);
        ASSERT_TRUE(goldens.has_value()) << goldens.error().to_string();
        EXPECT_FALSE(goldens->empty()) << type.name;
    }
}

TEST_F(GoldenTest, serial) {
    state::SerialState saved;
    saved.set_interrupt_enable(0x07);
    saved.set_fifo_control(0xC1);
    saved.set_line_control(0x1B);
    saved.set_modem_control(0x0B);
    saved.set_scratch(0x5A);
    saved.set_divisor(1);
    saved.set_transmit_empty_pending(true);
    saved.set_overrun(true);
    saved.set_received("typed ahead\n");
    const auto restore = [this](const state::Section& section) {
        return Serial::restore({.line = &line, .output = {}, .input_ready = {}}, section);
    };
    EXPECT_EQ(check_goldens(state::encode_section(Serial::section, 0, saved), resave(restore)), "");
}

TEST_F(GoldenTest, rtc) {
    constexpr std::size_t register_b = 0x0B;
    constexpr char set_and_alarm = '\xA2'; // SET: the time registers hold what the guest put there
    std::string registers(128, '\0');
    for (std::size_t i = 0; i < registers.size(); ++i) {
        registers[i] = static_cast<char>(i % 10);
    }
    registers[0x0A] = '\x26';
    registers[register_b] = set_and_alarm;
    registers[0x0C] = '\0';
    registers[0x0D] = '\x80';
    state::RtcState saved;
    saved.set_index(0x32);
    saved.set_registers(registers);
    saved.set_offset_seconds(-3600);
    const auto restore = [this](const state::Section& section) {
        return Rtc::restore({.line = &line, .clock = &clock, .ticks_wanted = [](bool) {}}, section);
    };
    EXPECT_EQ(check_goldens(state::encode_section(Rtc::section, 0, saved), resave(restore)), "");
}

TEST_F(GoldenTest, acpi_pm) {
    state::AcpiPmState saved;
    saved.set_status(0x0100);
    saved.set_enable(0x0120);
    saved.set_control(0x1C01);
    saved.set_timer_ticks(0x1'2345'6789);
    saved.set_monotonic_ns(clock.now().time_since_epoch().count());
    const auto restore = [this](const state::Section& section) {
        return AcpiPm::restore({.line = &line, .clock = &clock, .stop = no_stop},
                               section,
                               platform::TimerPolicy::running);
    };
    EXPECT_EQ(check_goldens(state::encode_section(AcpiPm::section, 0, saved), resave(restore)), "");
}

TEST_F(GoldenTest, reset_control) {
    state::ResetControlState saved;
    saved.set_value(2);
    const auto restore = [this](const state::Section& section) {
        return ResetControl::restore({.stop = no_stop, .around = nullptr}, section);
    };
    EXPECT_EQ(
        check_goldens(state::encode_section(ResetControl::section, 0, saved), resave(restore)), "");
}

/// Bytes that tell their place.
template <typename T>
T numbered(unsigned first) {
    T value{};
    std::array<std::byte, sizeof(T)> bytes{};
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        bytes[i] = static_cast<std::byte>((first + i) & 0xffU);
    }
    std::memcpy(&value, bytes.data(), sizeof(value));
    return value;
}

// KVM's part of it needs no KVM to be read and written: its structures are kept as they are.
TEST_F(GoldenTest, kvm_vm) {
    VmState vm;
    for (std::size_t i = 0; i < vm.irqchips.size(); ++i) {
        vm.irqchips[i] = numbered<kvm_irqchip>(static_cast<unsigned>(i) * 64);
    }
    vm.pit = numbered<kvm_pit_state2>(7);
    vm.clock = {.kvmclock_ns = 123'456'789'012,
                .host_tsc = 987'654'321'098,
                .monotonic_ns = 3'600'000'000'000,
                .host_tsc_exact = true};
    const auto resave = [](const state::Section& section) -> Result<state::Section> {
        return encode_vm_section(GODWIT_TRY(parse_vm_section(section)));
    };
    EXPECT_EQ(check_goldens(encode_vm_section(vm), resave), "");
}

TEST_F(GoldenTest, vcpu) {
    VcpuRecord vcpu;
    vcpu.mp_state.mp_state = 1;
    vcpu.regs = numbered<kvm_regs>(1);
    vcpu.sregs = numbered<kvm_sregs2>(2);
    vcpu.xcrs = numbered<kvm_xcrs>(3);
    vcpu.xsave.assign(4096, '\x11');
    vcpu.debug_registers = numbered<kvm_debugregs>(4);
    for (const std::uint32_t index : {0x10U, 0x6E0U, 0xC000'0080U}) {
        kvm_msr_entry entry{};
        entry.index = index;
        entry.data = 0x0123'4567'89AB'CDEF ^ index;
        vcpu.msrs.push_back(entry);
    }
    vcpu.lapic = numbered<kvm_lapic_state>(5);
    vcpu.events = numbered<kvm_vcpu_events>(6);
    vcpu.tsc_khz = 2'400'000;
    vcpu.tsc_offset = 0xffff'0000'0000'1234;
    vcpu.cpuid = {numbered<kvm_cpuid_entry2>(8), numbered<kvm_cpuid_entry2>(9)};
    const auto resave = [](const state::Section& section) -> Result<state::Section> {
        return encode_vcpu_section(GODWIT_TRY(parse_vcpu_section(section)), section.id.instance);
    };
    EXPECT_EQ(check_goldens(encode_vcpu_section(vcpu, 3), resave), "");
}

} // namespace
} // namespace godwit::machine
