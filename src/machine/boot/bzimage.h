#pragma once

/// bzImage kernels by the 64-bit boot protocol (Linux Documentation/arch/x86/boot.rst): header
/// checks, the zero page with e820 map and RSDP, identity page tables. Control thread.

#include "machine/boot/boot.h"
#include "sys/fd.h"

#include <cstdint>
#include <optional>
#include <vector>

namespace godwit::machine::boot {

/// A checked setup header and where things go.
struct BzImage {
    std::vector<std::byte> setup_header; ///< From offset 0x1F1, as it goes into the zero page.
    std::uint64_t kernel_offset = 0;     ///< Of the protected-mode part in the file.
    std::uint64_t kernel_bytes = 0;
    Gpa load_address;
    std::uint64_t memory_bytes = 0; ///< What the kernel needs from load_address (init_size).
    std::uint64_t initrd_address_max = 0;
    std::uint64_t command_line_bytes_max = 0;
};

/// True if the first KiB of a file is that of a bzImage.
[[nodiscard]] bool is_bzimage(std::span<const std::byte> head) noexcept;
[[nodiscard]] Result<BzImage> parse_bzimage(const sys::Fd& file);

struct LinuxStart {
    Gpa rsdp;
    std::optional<LoadedRange> initrd;
    std::uint64_t command_line_bytes = 0;
};
/// Writes zero page and page tables.
[[nodiscard]] Status
write_linux_start(memory::GuestMemory& memory, const BzImage& image, const LinuxStart& start);

} // namespace godwit::machine::boot
