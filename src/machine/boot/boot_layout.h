#pragma once

/// Where a new machine's memory holds what the kernel finds at its first instruction, and the
/// memory map it is told. Pure values.
///
///     0x00500  GDT                    0x20000  command line
///     0x07000  start info / zero page 0x9FC00  end of conventional memory
///     0x08000  PVH memory map         0xE0000  ACPI tables, to 1 MiB
///     0x09000  page tables (64-bit)   0x100000 kernel, initrd

#include "base/result.h"
#include "base/units.h"
#include "memory/guest_memory.h"

#include <cstdint>
#include <vector>

namespace godwit::machine::boot {

inline constexpr Gpa gdt_address{0x500};
inline constexpr Gpa info_address{0x7000};
inline constexpr Gpa memory_map_address{0x8000};
inline constexpr Gpa page_tables_address{0x9000};
inline constexpr Gpa command_line_address{0x2'0000};
inline constexpr std::uint64_t conventional_end = 0x9'FC00;
inline constexpr Gpa acpi_tables_start{0xE'0000};
inline constexpr Gpa kernel_area_start{0x10'0000};
/// PCI configuration space, memory mapped: bus 0 only (MCFG).
inline constexpr std::uint64_t ecam_start = 0xE000'0000;
inline constexpr std::uint64_t ecam_bytes = 0x10'0000;

/// Range types as in e820 and hvm_memmap_table_entry.
enum class RangeType : std::uint32_t { ram = 1, reserved = 2 };
struct MemoryRange {
    Gpa start;
    std::uint64_t bytes = 0;
    RangeType type = RangeType::ram;
};

/// What the guest is told about its physical addresses, ascending.
[[nodiscard]] std::vector<MemoryRange> memory_map(const memory::GuestMemory& memory);

/// First address behind the RAM that begins at 0.
[[nodiscard]] Gpa low_ram_end(const memory::GuestMemory& memory);

/// A range of guest memory taken by something loaded.
struct LoadedRange {
    Gpa start;
    Gpa end;
};

/// Reads `bytes` of the file at `offset` straight into guest memory; the rest up to `memory_bytes`
/// becomes zero. resource_exhausted with an advice if the RAM is too small.
struct FilePart {
    const sys::Fd* file = nullptr;
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
};
[[nodiscard]] Status
load_part(memory::GuestMemory& memory, Gpa to, const FilePart& part, std::uint64_t memory_bytes);

} // namespace godwit::machine::boot
