#include "machine/boot/boot_layout.h"

#include <algorithm>
#include <cstring>
#include <string>

namespace godwit::machine::boot {

Gpa low_ram_end(const memory::GuestMemory& memory) {
    const auto& first = memory.regions().front().ram;
    return Gpa{first.start.value + first.bytes};
}

std::vector<MemoryRange> memory_map(const memory::GuestMemory& memory) {
    const std::uint64_t low_end = low_ram_end(memory).value;
    std::vector<MemoryRange> map{
        {Gpa{0}, conventional_end, RangeType::ram},
        {Gpa{conventional_end}, 0xA'0000 - conventional_end, RangeType::reserved},
        {acpi_tables_start, 0x10'0000 - acpi_tables_start.value, RangeType::reserved},
        {kernel_area_start, low_end - kernel_area_start.value, RangeType::ram},
        {Gpa{ecam_start}, ecam_bytes, RangeType::reserved},
    };
    for (const auto& region : memory.regions()) {
        if (region.ram.start.value != 0) {
            map.push_back({region.ram.start, region.ram.bytes, RangeType::ram});
        }
    }
    return map;
}

namespace {

/// pread(2) stops at 2 GiB; this much at a time also keeps a truncated file from costing much.
constexpr std::uint64_t read_bytes_max = 256 * mib;

} // namespace

Status
load_part(memory::GuestMemory& memory, Gpa to, const FilePart& part, std::uint64_t memory_bytes) {
    const std::uint64_t bytes = std::max(memory_bytes, part.bytes);
    if (bytes == 0) {
        return ok();
    }
    const Result<std::span<std::byte>> target = memory.mutable_view(to, bytes);
    if (!target.has_value()) {
        return Error(ErrorCode::resource_exhausted,
                     "it needs memory up to " + std::to_string((to.value + bytes + mib - 1) / mib) +
                         " MiB, the machine has " + std::to_string(memory.ram_bytes() / mib) +
                         " MiB of RAM: give it more with --memory");
    }
    for (std::uint64_t done = 0; done < part.bytes;) {
        const std::uint64_t now = std::min(read_bytes_max, part.bytes - done);
        GODWIT_TRY(sys::pread_exact(*part.file, target->subspan(done, now), part.offset + done));
        done += now;
    }
    std::ranges::fill(target->subspan(part.bytes), std::byte{0});
    memory.note_written(to, bytes);
    return ok();
}

} // namespace godwit::machine::boot
