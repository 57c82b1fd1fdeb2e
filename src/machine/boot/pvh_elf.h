#pragma once

/// ELF kernels with a PVH entry point (XEN_ELFNOTE_PHYS32_ENTRY; Xen's docs/misc/pvh.pandoc):
/// checks, segments, and hvm_start_info. Control thread.

#include "machine/boot/boot.h"
#include "sys/fd.h"

#include <optional>
#include <string>

namespace godwit::machine::boot {

/// Limits on the image; Linux has 5 segments and some 100 bytes of notes.
inline constexpr std::size_t elf_segments_max = 64;
inline constexpr std::uint64_t elf_notes_bytes_max = 64 * 1024;

struct LoadedKernel {
    Gpa entry;
    LoadedRange range; ///< Everything the image occupies.
};

/// Reads the image's segments into memory.
[[nodiscard]] Result<LoadedKernel> load_pvh_elf(memory::GuestMemory& memory, const sys::Fd& file);

struct PvhStart {
    Gpa rsdp;
    std::optional<LoadedRange> initrd;
};
/// Writes hvm_start_info with the memory map, the command line's address and the initrd.
[[nodiscard]] Status write_pvh_start_info(memory::GuestMemory& memory, const PvhStart& start);

} // namespace godwit::machine::boot
