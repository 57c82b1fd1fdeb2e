#include "machine/acpi/tables.h"

#include "machine/acpi/dsdt.h"
#include "machine/acpi/table_writer.h"
#include "machine/boot/boot_layout.h"
#include "machine/platform/acpi_pm.h"
#include "machine/platform/reset_control.h"
#include "machine/platform/rtc.h"

#include <cstring>
#include <span>

namespace godwit::machine::acpi {

namespace {

constexpr std::uint64_t local_apic_address = 0xFEE0'0000;
constexpr std::uint64_t ioapic_address = 0xFEC0'0000;

std::vector<std::byte> madt(std::uint32_t vcpus) {
    TableBytes table("APIC", 5);
    table.put(local_apic_address, 4);
    table.put(1, 4); // PCAT_COMPAT: there are two 8259s
    for (std::uint32_t id = 0; id < vcpus; ++id) {
        table.put(0x0800, 2); // type 0: processor local APIC, 8 bytes
        table.put(id, 1);     // processor UID
        table.put(id, 1);     // APIC id
        table.put(1, 4);      // enabled
    }
    table.put(0x0C01, 2); // type 1: IOAPIC, 12 bytes
    table.put(0, 2);
    table.put(ioapic_address, 4);
    table.put(0, 4);      // its first GSI
    table.put(0x0A02, 2); // type 2: interrupt source override, 10 bytes
    table.put(0x0000, 2); // ISA interrupt 0 ...
    table.put(2, 4);      // ... is GSI 2
    table.put(0, 2);
    table.put(0x0A02, 2);
    table.put(platform::AcpiPm::irq << 8U, 2); // the SCI ...
    table.put(platform::AcpiPm::irq, 4);
    table.put(0x000D, 2); // ... is level triggered, active high
    table.put(0x0604, 2); // type 4: NMI pin, 6 bytes
    table.put(0xFF, 1);   // of every processor
    table.put(0, 2);
    table.put(1, 1); // LINT1
    return std::move(table).finish();
}

std::vector<std::byte> mcfg() {
    TableBytes table("MCFG", 1);
    table.put(0, 8);
    table.put(boot::ecam_start, 8);
    table.put(0, 2); // segment
    table.put(0, 1); // first bus
    table.put(0, 1); // last bus
    table.put(0, 4);
    return std::move(table).finish();
}

std::vector<std::byte> facs() {
    constexpr std::uint8_t length = 64;
    std::vector<std::byte> table(length);
    std::memcpy(table.data(), "FACS", 4);
    table[4] = std::byte{length};
    table[32] = std::byte{2}; // version
    return table;
}

// Fixed feature flags (5.2.9, table 5.10). The power button is fixed hardware (flag clear); sleep
// button and RTC wake-up are not there.
constexpr std::uint32_t fadt_wbinvd = 1U << 0U;
constexpr std::uint32_t fadt_c1_everywhere = 1U << 2U;
constexpr std::uint32_t fadt_no_sleep_button = 1U << 5U;
constexpr std::uint32_t fadt_no_fixed_rtc = 1U << 6U;
constexpr std::uint32_t fadt_timer_32_bits = 1U << 8U;
constexpr std::uint32_t fadt_reset_register = 1U << 10U;
// IA-PC boot flags (5.2.9.3): there are ISA devices; neither 8042 nor VGA; a CMOS clock is there.
constexpr std::uint32_t boot_legacy_devices = 1U << 0U;
constexpr std::uint32_t boot_no_vga = 1U << 2U;
constexpr std::uint32_t boot_no_aspm = 1U << 4U;

std::vector<std::byte> fadt(Gpa facs_at, Gpa dsdt_at) {
    using Pm = platform::AcpiPm;
    TableBytes table("FACP", 6);
    table.put(facs_at.value, 4);
    table.put(dsdt_at.value, 4);
    table.put(0, 1); // reserved
    table.put(4, 1); // preferred profile: enterprise server
    table.put(Pm::irq, 2);
    table.put(0, 4);     // no SMI command port: ACPI mode always
    table.put_zeroes(4); // ACPI_ENABLE, ACPI_DISABLE, S4BIOS_REQ, PSTATE_CNT
    table.put(Pm::event_port, 4);
    table.put(0, 4);
    table.put(Pm::control_port, 4);
    table.put(0, 4);
    table.put(0, 4); // no PM2 control
    table.put(Pm::timer_port, 4);
    table.put(0, 8); // no general purpose events
    table.put(Pm::event_bytes, 1);
    table.put(Pm::control_bytes, 1);
    table.put(0, 1);
    table.put(Pm::timer_bytes, 1);
    table.put_zeroes(4);  // GPE lengths and base, CST_CNT
    table.put(0xFFFF, 2); // C2 and C3 are not there
    table.put(0xFFFF, 2);
    table.put_zeroes(6); // FLUSH_SIZE, FLUSH_STRIDE, DUTY_OFFSET, DUTY_WIDTH
    table.put_zeroes(2); // DAY_ALRM, MON_ALRM
    table.put(platform::Rtc::century_register, 1);
    table.put(boot_legacy_devices | boot_no_vga | boot_no_aspm, 2);
    table.put(0, 1);
    table.put(fadt_wbinvd | fadt_c1_everywhere | fadt_no_sleep_button | fadt_no_fixed_rtc |
                  fadt_timer_32_bits | fadt_reset_register,
              4);
    table.put_port(platform::ResetControl::port, 8);
    table.put(platform::ResetControl::reset_value, 1);
    table.put(0, 2); // ARM boot flags
    table.put(3, 1); // minor version
    table.put(facs_at.value, 8);
    table.put(dsdt_at.value, 8);
    table.put_port(Pm::event_port, 32);
    table.put_port(0, 0);
    table.put_port(Pm::control_port, 16);
    table.put_port(0, 0);
    table.put_port(0, 0);
    table.put_port(Pm::timer_port, 32);
    for (int i = 0; i < 4; ++i) {
        table.put_port(0, 0); // GPE blocks, sleep control and status
    }
    table.put(0, 8); // hypervisor vendor
    return std::move(table).finish();
}

std::vector<std::byte> xsdt(std::span<const Gpa> tables) {
    TableBytes table("XSDT", 1);
    for (const Gpa at : tables) {
        table.put(at.value, 8);
    }
    return std::move(table).finish();
}

std::vector<std::byte> rsdp(Gpa xsdt_at) {
    constexpr std::size_t length = 36;
    constexpr std::size_t first_part = 20;
    std::vector<std::byte> table(length);
    std::memcpy(table.data(), "RSD PTR ", 8);
    std::memcpy(table.data() + 9, "GODWIT", 6);
    table[15] = std::byte{2}; // revision
    table[20] = std::byte{length};
    std::memcpy(table.data() + 24, &xsdt_at.value, sizeof(xsdt_at.value));
    table[8] = std::byte{checksum_of(std::span(table).first(first_part))};
    table[32] = std::byte{checksum_of(table)};
    return table;
}

} // namespace

Tables build_tables(std::uint32_t vcpus, Gpa start) {
    // The RSDP comes first, where kernels look for it; its content follows from the others.
    TableArea area(start);
    const Gpa rsdp_at = area.place(rsdp(Gpa{0}));
    const Gpa facs_at = area.place(facs());
    const Gpa dsdt_at = area.place(dsdt());
    const std::vector<Gpa> listed{
        area.place(fadt(facs_at, dsdt_at)), area.place(madt(vcpus)), area.place(mcfg())};
    const Gpa xsdt_at = area.place(xsdt(listed));
    Tables tables{.rsdp = rsdp_at, .start = start, .bytes = std::move(area).take()};
    const std::vector<std::byte> root = rsdp(xsdt_at);
    std::memcpy(tables.bytes.data(), root.data(), root.size());
    return tables;
}

} // namespace godwit::machine::acpi
