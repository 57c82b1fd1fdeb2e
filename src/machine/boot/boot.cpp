#include "machine/boot/boot.h"

#include "machine/boot/bzimage.h"
#include "machine/boot/pvh_elf.h"

#include <elf.h>
#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

namespace godwit::machine::boot {

namespace {

/// Kernels that do not say more reach initrds up to here (boot protocol, initrd_addr_max).
constexpr std::uint64_t initrd_address_max_default = 0x37FF'FFFF;

Status write_command_line(memory::GuestMemory& memory, const std::string& command_line) {
    const auto bytes = std::as_bytes(std::span(command_line.c_str(), command_line.size() + 1));
    return memory.write(command_line_address, bytes);
}

/// As high as the limits allow, page aligned, never into the kernel.
Result<std::optional<LoadedRange>> load_initrd(memory::GuestMemory& memory,
                                               const std::string& path,
                                               const LoadedRange& kernel,
                                               std::uint64_t address_max) {
    if (path.empty()) {
        return std::nullopt;
    }
    const sys::Fd file = GODWIT_TRY(sys::open(path, O_RDONLY));
    const std::uint64_t bytes = GODWIT_TRY(sys::file_size(file));
    if (bytes == 0) {
        return Error(ErrorCode::invalid_argument, "the file is empty");
    }
    const std::uint64_t top = std::min(low_ram_end(memory).value, address_max + 1);
    const std::uint64_t start = bytes <= top ? round_down(top - bytes, page_size) : 0;
    if (start < kernel.end.value) {
        return Error(ErrorCode::resource_exhausted,
                     "kernel and initrd together do not fit into the machine's " +
                         std::to_string(memory.ram_bytes() / mib) +
                         " MiB of RAM: give it more with --memory");
    }
    GODWIT_TRY(load_part(memory, Gpa{start}, {.file = &file, .offset = 0, .bytes = bytes}, bytes));
    return LoadedRange{.start = Gpa{start}, .end = Gpa{start + bytes}};
}

Result<std::optional<LoadedRange>> load_named_initrd(memory::GuestMemory& memory,
                                                     const KernelSpec& kernel,
                                                     const LoadedRange& occupied,
                                                     std::uint64_t address_max) {
    return load_initrd(memory, kernel.initrd, occupied, address_max)
        .with_context("initrd '" + kernel.initrd + "'");
}

Result<Entry>
load_elf(memory::GuestMemory& memory, const KernelSpec& kernel, const sys::Fd& file, Gpa rsdp) {
    const LoadedKernel loaded =
        GODWIT_TRY(load_pvh_elf(memory, file).with_context("kernel '" + kernel.path + "'"));
    const auto initrd =
        GODWIT_TRY(load_named_initrd(memory, kernel, loaded.range, initrd_address_max_default));
    GODWIT_TRY(write_pvh_start_info(memory, {.rsdp = rsdp, .initrd = initrd}));
    return Entry{.mode = Entry::Mode::protected_32, .instruction = loaded.entry};
}

Result<Entry>
load_bzimage(memory::GuestMemory& memory, const KernelSpec& kernel, const sys::Fd& file, Gpa rsdp) {
    constexpr std::uint64_t entry_64_offset = 0x200;
    const std::string context = "kernel '" + kernel.path + "'";
    const BzImage image = GODWIT_TRY(parse_bzimage(file).with_context(context));
    if (kernel.command_line.size() > image.command_line_bytes_max) {
        return Error(ErrorCode::invalid_argument,
                     "the command line has " + std::to_string(kernel.command_line.size()) +
                         " bytes, this kernel takes " +
                         std::to_string(image.command_line_bytes_max));
    }
    GODWIT_TRY(
        load_part(memory,
                  image.load_address,
                  {.file = &file, .offset = image.kernel_offset, .bytes = image.kernel_bytes},
                  image.memory_bytes)
            .with_context(context));
    const LoadedRange occupied{.start = image.load_address,
                               .end = Gpa{image.load_address.value + image.memory_bytes}};
    const std::uint64_t address_max =
        std::min(image.initrd_address_max, memory::pci_hole_start - 1);
    const auto initrd = GODWIT_TRY(load_named_initrd(memory, kernel, occupied, address_max));
    GODWIT_TRY(write_linux_start(memory, image, {.rsdp = rsdp, .initrd = initrd}));
    return Entry{.mode = Entry::Mode::long_64,
                 .instruction = Gpa{image.load_address.value + entry_64_offset}};
}

Result<sys::Fd> open_kernel(const std::string& path) {
    Result<sys::Fd> file = sys::open(path, O_RDONLY);
    if (file.has_value()) {
        return file;
    }
    return Error(file.error().code(),
                 "cannot open the kernel '" + path + "': " + file.error().message() +
                     "; give the path of a vmlinux or vmlinuz with --kernel");
}

/// The first KiB of a file, or all of a shorter one.
Result<std::vector<std::byte>> read_head(const sys::Fd& file) {
    std::vector<std::byte> head(std::min<std::uint64_t>(GODWIT_TRY(sys::file_size(file)), kib));
    GODWIT_TRY(sys::pread_exact(file, head, 0));
    return head;
}

/// What the segment registers of set_entry() say, for kernels that reload them.
Status write_descriptor_table(memory::GuestMemory& memory) {
    constexpr std::array<std::uint64_t, 5> descriptors{
        0,
        0,
        0x00CF'9B00'0000'FFFF, // 0x10: flat code, 32-bit (a 64-bit kernel brings its own)
        0x00CF'9300'0000'FFFF, // 0x18: flat data
        0x0000'8B00'0000'0067, // 0x20: task segment
    };
    return memory.store(gdt_address, descriptors);
}

} // namespace

Result<Entry> load_kernel(memory::GuestMemory& memory, const KernelSpec& kernel, Gpa rsdp) {
    const sys::Fd file = GODWIT_TRY(open_kernel(kernel.path));
    if (kernel.command_line.size() > command_line_bytes_max) {
        return Error(ErrorCode::invalid_argument,
                     "the kernel command line has " + std::to_string(kernel.command_line.size()) +
                         " bytes, at most " + std::to_string(command_line_bytes_max) + " fit");
    }
    GODWIT_TRY(write_command_line(memory, kernel.command_line));
    GODWIT_TRY(write_descriptor_table(memory));
    const std::vector<std::byte> head = GODWIT_TRY(read_head(file));
    if (head.size() >= SELFMAG && std::memcmp(head.data(), ELFMAG, SELFMAG) == 0) {
        return load_elf(memory, kernel, file, rsdp);
    }
    if (is_bzimage(head)) {
        return load_bzimage(memory, kernel, file, rsdp);
    }
    return Error(ErrorCode::invalid_argument,
                 "'" + kernel.path +
                     "' is neither an ELF kernel (vmlinux) nor a bzImage (vmlinuz)");
}

namespace {

kvm_segment flat_segment(std::uint16_t selector, std::uint8_t type, Entry::Mode mode) {
    const bool code = (type & 0x8U) != 0;
    const bool long_code = code && mode == Entry::Mode::long_64;
    kvm_segment segment{};
    segment.limit = 0xFFFF'FFFF;
    segment.selector = selector;
    segment.type = type;
    segment.present = 1;
    segment.s = 1;
    segment.g = 1;
    segment.l = long_code ? 1 : 0;
    segment.db = long_code ? 0 : 1;
    return segment;
}

kvm_segment task_segment() {
    kvm_segment segment{};
    segment.limit = 0x67;
    segment.selector = 0x20;
    segment.type = 0xB; // busy 32/64-bit TSS
    segment.present = 1;
    return segment;
}

// Control register and EFER bits (Intel SDM volume 3, section 2.5; AMD APM volume 2, section 3.1).
constexpr std::uint64_t cr0_pe = 1U << 0U;
constexpr std::uint64_t cr0_et = 1U << 4U;
constexpr std::uint64_t cr0_pg = 1U << 31U;
constexpr std::uint64_t cr4_pae = 1U << 5U;
constexpr std::uint64_t efer_lme = 1U << 8U;
constexpr std::uint64_t efer_lma = 1U << 10U;

} // namespace

Status set_entry(const kvm::Vcpu& vcpu, const Entry& entry) {
    // Linux wants its own selectors: code 0x10, data 0x18 (boot.rst, 64-bit protocol).
    constexpr std::uint8_t code_type = 0xB;
    constexpr std::uint8_t data_type = 0x3;
    const bool long_mode = entry.mode == Entry::Mode::long_64;
    kvm_sregs2 sregs = GODWIT_TRY(vcpu.sregs());
    sregs.cs = flat_segment(0x10, code_type, entry.mode);
    for (kvm_segment* data : {&sregs.ds, &sregs.es, &sregs.fs, &sregs.gs, &sregs.ss}) {
        *data = flat_segment(0x18, data_type, entry.mode);
    }
    sregs.tr = task_segment();
    sregs.cr0 = cr0_pe | cr0_et | (long_mode ? cr0_pg : 0);
    sregs.cr3 = long_mode ? page_tables_address.value : 0;
    sregs.cr4 = long_mode ? cr4_pae : 0;
    sregs.efer = long_mode ? efer_lme | efer_lma : 0;
    sregs.gdt.base = gdt_address.value;
    sregs.gdt.limit = 5 * 8 - 1;
    GODWIT_TRY(vcpu.set_sregs(sregs));
    kvm_regs regs{};
    regs.rflags = 0x2;
    regs.rip = entry.instruction.value;
    (long_mode ? regs.rsi : regs.rbx) = info_address.value;
    return vcpu.set_regs(regs);
}

} // namespace godwit::machine::boot
