#pragma once

/// The machine's ACPI tables (ACPI 6.4): RSDP, XSDT, FADT, FACS, MADT, MCFG and the DSDT from
/// dsdt.asl, laid out for one place in guest memory. Pure functions.

#include "base/units.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace godwit::machine::acpi {

struct Tables {
    Gpa rsdp;
    Gpa start;
    std::vector<std::byte> bytes; ///< To be copied to `start`.
};

/// Tables for `vcpus` processors (1..64) with APIC ids 0.. , to lie at `start` (64-byte aligned).
[[nodiscard]] Tables build_tables(std::uint32_t vcpus, Gpa start);

} // namespace godwit::machine::acpi
