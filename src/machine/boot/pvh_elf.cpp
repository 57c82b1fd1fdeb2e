#include "machine/boot/pvh_elf.h"

#include <elf.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>
#include <vector>

namespace godwit::machine::boot {

namespace {

constexpr std::uint32_t note_phys32_entry = 18; // Xen's public/elfnote.h

Error bad_image(const std::string& what) {
    return Error(ErrorCode::corrupt, "not a usable ELF kernel: " + what);
}

template <typename T>
Result<T> read_at(const sys::Fd& file, std::uint64_t offset) {
    T value{};
    GODWIT_TRY(sys::pread_exact(file, std::as_writable_bytes(std::span(&value, 1)), offset));
    return value;
}

Status check_header(const Elf64_Ehdr& header) {
    if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
        header.e_machine != EM_X86_64) {
        return Error(ErrorCode::unsupported, "the kernel is not a 64-bit x86 ELF file");
    }
    if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum == 0 ||
        header.e_phnum > elf_segments_max) {
        return bad_image("it has " + std::to_string(header.e_phnum) + " program headers");
    }
    return ok();
}

Result<std::vector<Elf64_Phdr>> read_segments(const sys::Fd& file, std::uint64_t file_bytes) {
    const auto header = GODWIT_TRY(read_at<Elf64_Ehdr>(file, 0));
    GODWIT_TRY(check_header(header));
    std::vector<Elf64_Phdr> segments(header.e_phnum);
    const auto table = std::as_writable_bytes(std::span(segments));
    if (header.e_phoff > file_bytes || table.size() > file_bytes - header.e_phoff) {
        return bad_image("its program headers lie outside the file");
    }
    GODWIT_TRY(sys::pread_exact(file, table, header.e_phoff));
    for (const Elf64_Phdr& segment : segments) {
        if (segment.p_offset > file_bytes || segment.p_filesz > file_bytes - segment.p_offset) {
            return bad_image("a segment reaches beyond the end of the file");
        }
    }
    return segments;
}

/// The 32-bit entry point from the bytes of a note segment, if it is there. Name and descriptor are
/// padded to four bytes (System V ABI, note section).
std::optional<Gpa> find_entry_note(std::span<const std::byte> notes) {
    constexpr std::string_view xen("Xen\0", 4);
    std::uint64_t at = 0;
    while (notes.size() - at >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr note{};
        std::memcpy(&note, notes.data() + at, sizeof(note));
        at += sizeof(note);
        const std::uint64_t name_bytes = round_up(note.n_namesz, 4);
        const std::uint64_t value_bytes = round_up(note.n_descsz, 4);
        if (name_bytes > notes.size() - at || value_bytes > notes.size() - at - name_bytes) {
            return std::nullopt;
        }
        const bool is_xen = note.n_namesz == xen.size() &&
                            std::memcmp(notes.data() + at, xen.data(), xen.size()) == 0;
        if (is_xen && note.n_type == note_phys32_entry && note.n_descsz >= 4) {
            std::uint32_t entry = 0;
            std::memcpy(&entry, notes.data() + at + name_bytes, sizeof(entry));
            return Gpa{entry};
        }
        at += name_bytes + value_bytes;
    }
    return std::nullopt;
}

Result<Gpa> read_entry(const sys::Fd& file, const std::vector<Elf64_Phdr>& segments) {
    for (const Elf64_Phdr& segment : segments) {
        if (segment.p_type != PT_NOTE || segment.p_filesz > elf_notes_bytes_max) {
            continue;
        }
        std::vector<std::byte> notes(segment.p_filesz);
        GODWIT_TRY(sys::pread_exact(file, notes, segment.p_offset));
        if (const std::optional<Gpa> entry = find_entry_note(notes)) {
            return *entry;
        }
    }
    return Error(ErrorCode::unsupported,
                 "the ELF kernel has no PVH entry (note XEN_ELFNOTE_PHYS32_ENTRY): build it with "
                 "CONFIG_PVH=y, or give the bzImage");
}

Status load_segment(memory::GuestMemory& memory, const sys::Fd& file, const Elf64_Phdr& segment) {
    if (segment.p_filesz > segment.p_memsz) {
        return bad_image("a segment is larger in the file than in memory");
    }
    if (segment.p_paddr < kernel_area_start.value ||
        segment.p_memsz > memory::pci_hole_end - std::min(memory::pci_hole_end, segment.p_paddr)) {
        return bad_image("a segment lies outside 1 MiB to 4 GiB");
    }
    return load_part(memory,
                     Gpa{segment.p_paddr},
                     {.file = &file, .offset = segment.p_offset, .bytes = segment.p_filesz},
                     segment.p_memsz);
}

} // namespace

Result<LoadedKernel> load_pvh_elf(memory::GuestMemory& memory, const sys::Fd& file) {
    const std::uint64_t file_bytes = GODWIT_TRY(sys::file_size(file));
    const auto segments = GODWIT_TRY(read_segments(file, file_bytes));
    LoadedKernel loaded{.entry = GODWIT_TRY(read_entry(file, segments)),
                        .range = {.start = Gpa{~std::uint64_t{0}}, .end = Gpa{0}}};
    bool entry_is_loaded = false;
    for (const Elf64_Phdr& segment : segments) {
        if (segment.p_type != PT_LOAD || segment.p_memsz == 0) {
            continue;
        }
        GODWIT_TRY(load_segment(memory, file, segment));
        const Gpa end{segment.p_paddr + segment.p_memsz};
        loaded.range.start = std::min(loaded.range.start, Gpa{segment.p_paddr});
        loaded.range.end = std::max(loaded.range.end, end);
        entry_is_loaded |= loaded.entry >= Gpa{segment.p_paddr} && loaded.entry < end;
    }
    if (!entry_is_loaded) {
        return bad_image("its entry point lies outside its segments");
    }
    return loaded;
}

namespace {

// Xen's public/arch-x86/hvm/start_info.h, version 1.
struct StartInfo {
    std::uint32_t magic = 0x336E'C578;
    std::uint32_t version = 1;
    std::uint32_t flags = 0;
    std::uint32_t module_count = 0;
    std::uint64_t modules = 0;
    std::uint64_t command_line = 0;
    std::uint64_t rsdp = 0;
    std::uint64_t memory_map = 0;
    std::uint32_t memory_map_entries = 0;
    std::uint32_t reserved = 0;
};
static_assert(sizeof(StartInfo) == 56);
struct Module {
    std::uint64_t address = 0;
    std::uint64_t bytes = 0;
    std::uint64_t command_line = 0;
    std::uint64_t reserved = 0;
};
struct MapEntry {
    std::uint64_t address = 0;
    std::uint64_t bytes = 0;
    std::uint32_t type = 0;
    std::uint32_t reserved = 0;
};
static_assert(sizeof(MapEntry) == 24);

constexpr std::uint64_t module_offset = 64; ///< The module stands behind the start info.

} // namespace

Status write_pvh_start_info(memory::GuestMemory& memory, const PvhStart& start) {
    StartInfo info;
    info.command_line = command_line_address.value;
    info.rsdp = start.rsdp.value;
    if (start.initrd.has_value()) {
        const Module initrd{.address = start.initrd->start.value,
                            .bytes = start.initrd->end.value - start.initrd->start.value};
        info.module_count = 1;
        info.modules = info_address.value + module_offset;
        GODWIT_TRY(memory.store(Gpa{info.modules}, initrd));
    }
    info.memory_map = memory_map_address.value;
    for (const MemoryRange& range : memory_map(memory)) {
        const MapEntry entry{.address = range.start.value,
                             .bytes = range.bytes,
                             .type = static_cast<std::uint32_t>(range.type)};
        const Gpa to{info.memory_map + info.memory_map_entries * sizeof(MapEntry)};
        GODWIT_TRY(memory.store(to, entry));
        ++info.memory_map_entries;
    }
    return memory.store(info_address, info);
}

} // namespace godwit::machine::boot
