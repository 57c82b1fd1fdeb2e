#include "machine/boot/bzimage.h"

#include <asm/bootparam.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

namespace godwit::machine::boot {

namespace {

constexpr std::size_t header_offset = 0x1F1;
constexpr std::size_t header_end_offset = 0x202; ///< Plus the byte at 0x201: end of the header.
constexpr std::size_t head_bytes = 1024;
constexpr std::uint16_t version_min = 0x020C; ///< XLF_KERNEL_64 and init_size exist (Linux 3.8).
constexpr std::uint64_t sector_bytes = 512;
constexpr std::uint8_t loader_type_unregistered = 0xFF;

Error bad_image(const std::string& what) {
    return Error(ErrorCode::corrupt, "not a usable bzImage: " + what);
}

template <typename T>
T field(std::span<const std::byte> head, std::size_t offset) {
    T value{};
    std::memcpy(&value, head.data() + offset, sizeof(value));
    return value;
}

} // namespace

bool is_bzimage(std::span<const std::byte> head) noexcept {
    return head.size() >= head_bytes && field<std::uint16_t>(head, 0x1FE) == 0xAA55 &&
           std::memcmp(head.data() + 0x202, "HdrS", 4) == 0;
}

Result<BzImage> parse_bzimage(const sys::Fd& file) {
    const std::uint64_t file_bytes = GODWIT_TRY(sys::file_size(file));
    std::array<std::byte, head_bytes> head{};
    GODWIT_TRY(sys::pread_exact(file, head, 0));
    const std::size_t header_end = header_end_offset + std::to_integer<std::size_t>(head[0x201]);
    setup_header header{};
    // A newer protocol's header is longer; the fields behind ours are not needed.
    const std::size_t header_bytes = std::min(header_end - header_offset, sizeof(setup_header));
    std::memcpy(&header, head.data() + header_offset, header_bytes);
    if (header.version < version_min || (header.xloadflags & XLF_KERNEL_64) == 0) {
        return Error(ErrorCode::unsupported,
                     "the kernel has no 64-bit entry point (boot protocol 2.12 or newer)");
    }
    BzImage image;
    const std::uint64_t setup_sectors = header.setup_sects == 0 ? 4 : header.setup_sects;
    image.kernel_offset = (setup_sectors + 1) * sector_bytes;
    if (image.kernel_offset >= file_bytes) {
        return bad_image("the file ends inside its setup code");
    }
    image.kernel_bytes = file_bytes - image.kernel_offset;
    if (std::uint64_t{header.syssize} * 16 > image.kernel_bytes) {
        return bad_image("the file is shorter than its header says");
    }
    image.load_address = Gpa{header.pref_address};
    image.memory_bytes = std::max<std::uint64_t>(header.init_size, image.kernel_bytes);
    if (image.load_address < kernel_area_start || header.pref_address > memory::pci_hole_start ||
        header.init_size > memory::pci_hole_start) {
        return bad_image("it wants to be loaded at " + std::to_string(header.pref_address));
    }
    image.initrd_address_max = header.initrd_addr_max;
    image.command_line_bytes_max = header.cmdline_size;
    image.setup_header.assign(head.begin() + header_offset,
                              head.begin() +
                                  static_cast<std::ptrdiff_t>(header_offset + header_bytes));
    return image;
}

namespace {

/// Identity map of the first 4 GiB by 2 MiB pages: one PML4, one PDPT, four page directories.
Status write_page_tables(memory::GuestMemory& memory) {
    constexpr std::uint64_t present_writable = 0x3;
    constexpr std::uint64_t large_page = 0x80;
    constexpr std::uint64_t large_page_bytes = 2 * mib;
    constexpr std::size_t directories = 4;
    using Table = std::array<std::uint64_t, 512>;
    const std::uint64_t base = page_tables_address.value;
    Table pml4{};
    pml4[0] = (base + page_size) | present_writable;
    GODWIT_TRY(memory.store(page_tables_address, pml4));
    Table pdpt{};
    for (std::size_t i = 0; i < directories; ++i) {
        const std::uint64_t directory_at = base + (2 + i) * page_size;
        pdpt[i] = directory_at | present_writable;
        Table directory{};
        for (std::size_t j = 0; j < directory.size(); ++j) {
            directory[j] =
                (i * directory.size() + j) * large_page_bytes | present_writable | large_page;
        }
        GODWIT_TRY(memory.store(Gpa{directory_at}, directory));
    }
    return memory.store(Gpa{base + page_size}, pdpt);
}

void describe_initrd(boot_params& params, const LoadedRange& initrd) {
    const std::uint64_t bytes = initrd.end.value - initrd.start.value;
    params.hdr.ramdisk_image = static_cast<std::uint32_t>(initrd.start.value);
    params.hdr.ramdisk_size = static_cast<std::uint32_t>(bytes);
    params.ext_ramdisk_image = static_cast<std::uint32_t>(initrd.start.value >> 32U);
    params.ext_ramdisk_size = static_cast<std::uint32_t>(bytes >> 32U);
}

} // namespace

Status
write_linux_start(memory::GuestMemory& memory, const BzImage& image, const LinuxStart& start) {
    boot_params params{};
    std::memcpy(&params.hdr,
                image.setup_header.data(),
                std::min(image.setup_header.size(), sizeof(params.hdr)));
    params.hdr.type_of_loader = loader_type_unregistered;
    params.hdr.cmd_line_ptr = static_cast<std::uint32_t>(command_line_address.value);
    params.hdr.ramdisk_image = 0;
    params.hdr.ramdisk_size = 0;
    if (start.initrd.has_value()) {
        describe_initrd(params, *start.initrd);
    }
    params.acpi_rsdp_addr = start.rsdp.value;
    for (const MemoryRange& range : memory_map(memory)) {
        boot_e820_entry& entry = params.e820_table[params.e820_entries];
        entry.addr = range.start.value;
        entry.size = range.bytes;
        entry.type = static_cast<std::uint32_t>(range.type);
        ++params.e820_entries;
    }
    GODWIT_TRY(write_page_tables(memory));
    return memory.store(info_address, params);
}

} // namespace godwit::machine::boot
