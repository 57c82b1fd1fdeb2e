#include "machine/testing/guest_image.h"

#include <elf.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace godwit::machine::testing {

Bytes pvh_elf(std::span<const std::uint8_t> code) {
    constexpr std::size_t note_offset = sizeof(Elf64_Ehdr) + 2 * sizeof(Elf64_Phdr);
    constexpr std::size_t code_offset = 256;
    struct Note {
        Elf64_Nhdr header{.n_namesz = 4, .n_descsz = 4, .n_type = 18};
        char name[4] = {'X', 'e', 'n', '\0'};
        std::uint32_t entry = static_cast<std::uint32_t>(code_address);
    } const note;
    Elf64_Ehdr header{};
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_machine = EM_X86_64;
    header.e_phoff = sizeof(header);
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_phnum = 2;
    Elf64_Phdr load{};
    load.p_type = PT_LOAD;
    load.p_offset = code_offset;
    load.p_paddr = code_address;
    load.p_filesz = code.size();
    load.p_memsz = code.size() + 64;
    Elf64_Phdr notes{};
    notes.p_type = PT_NOTE;
    notes.p_offset = note_offset;
    notes.p_filesz = sizeof(note);
    Bytes image(code_offset + code.size());
    std::memcpy(image.data(), &header, sizeof(header));
    std::memcpy(image.data() + sizeof(header), &load, sizeof(load));
    std::memcpy(image.data() + sizeof(header) + sizeof(load), &notes, sizeof(notes));
    std::memcpy(image.data() + note_offset, &note, sizeof(note));
    std::memcpy(image.data() + code_offset, code.data(), code.size());
    return image;
}

Bytes bzimage(std::size_t kernel_bytes) {
    constexpr std::size_t setup_bytes = 2 * 512;
    Bytes image(setup_bytes + kernel_bytes, 0x90);
    std::memset(image.data(), 0, setup_bytes);
    image[0x1F1] = 1;                                                                 // setup_sects
    poke<std::uint32_t>(image, 0x1F4, static_cast<std::uint32_t>(kernel_bytes / 16)); // syssize
    poke<std::uint16_t>(image, 0x1FE, 0xAA55);
    image[0x201] = 0x6A; // jump: the header ends at 0x26C
    std::memcpy(image.data() + 0x202, "HdrS", 4);
    poke<std::uint16_t>(image, 0x206, 0x020F);
    poke<std::uint32_t>(image, 0x22C, 0x7FFF'FFFF); // initrd_addr_max
    poke<std::uint16_t>(image, 0x236, 1);           // XLF_KERNEL_64
    poke<std::uint32_t>(image, 0x238, 2047);        // cmdline_size
    poke<std::uint64_t>(image, 0x258, 0x100'0000);  // pref_address
    poke<std::uint32_t>(image, 0x260, 0x20'0000);   // init_size
    return image;
}

TemporaryFile::TemporaryFile(std::span<const std::uint8_t> content)
    : path_("/tmp/godwit-test-XXXXXX") {
    const sys::Fd fd{::mkostemp(path_.data(), O_CLOEXEC)};
    // A test without its file fails at the first look at it.
    discard(sys::write_all(fd, std::as_bytes(content)), "noticed by the test");
}

TemporaryFile::~TemporaryFile() {
    ::unlink(path_.c_str());
}

sys::Fd TemporaryFile::open() const {
    auto fd = sys::open(path_, O_RDONLY);
    return fd.has_value() ? std::move(*fd) : sys::Fd();
}

const Bytes& hello_code() {
    static const Bytes code{
        0x66, 0xBA, 0xF8, 0x03, // mov $0x3f8,%dx
        0xB0, 'h',  0xEE,       // mov $'h',%al; out %al,%dx
        0xB0, 'i',  0xEE,       // mov $'i',%al; out %al,%dx
        0x66, 0xBA, 0x04, 0x06, // mov $0x604,%dx
        0x66, 0xB8, 0x00, 0x34, // mov $0x3400,%ax
        0x66, 0xEF,             // out %ax,%dx
        0xF4, 0xEB, 0xFD,       // 1: hlt; jmp 1b
    };
    return code;
}

const Bytes& hammer_code() {
    static const Bytes code{
        0x89, 0xC8,                         // next: mov %ecx,%eax
        0xBA, 0x00, 0x05, 0x00, 0x00, 0xEF, // mov $0x500,%edx; out %eax,%dx
        0xBA, 0x04, 0x05, 0x00, 0x00, 0xED, // mov $0x504,%edx; in %dx,%eax
        0x39, 0xC8, 0x75, 0x12,             // cmp %ecx,%eax; jne bad
        0x89, 0x0D, 0x00, 0x00, 0x00, 0xD0, // mov %ecx,0xd0000000
        0xA1, 0x04, 0x00, 0x00, 0xD0,       // mov 0xd0000004,%eax
        0x39, 0xC8, 0x75, 0x03,             // cmp %ecx,%eax; jne bad
        0x41, 0xEB, 0xDC,                   // inc %ecx; jmp next
        0xBA, 0x08, 0x05, 0x00, 0x00, 0xEF, // bad: mov $0x508,%edx; out %eax,%dx
        0xF4, 0xEB, 0xFD,                   // 1: hlt; jmp 1b
    };
    return code;
}

const Bytes& clock_code() {
    static const Bytes code{
        0xB9, 0x01, 0x4D, 0x56, 0x4B,             // mov $0x4b564d01,%ecx
        0xB8, 0x01, 0x30, 0x00, 0x00, 0x31, 0xD2, // mov $0x3001,%eax; xor %edx,%edx
        0x0F, 0x30,                               // wrmsr
        0x31, 0xF6, 0x31, 0xFF,                   // xor %esi,%esi; xor %edi,%edi
        0x0F, 0x31,                               // next: rdtsc
        0x89, 0xC3, 0x89, 0xD5,                   // mov %eax,%ebx; mov %edx,%ebp
        0x29, 0xF0, 0x19, 0xFA, 0x72, 0x0C,       // sub %esi,%eax; sbb %edi,%edx; jb back
        0x89, 0xDE, 0x89, 0xEF,                   // mov %ebx,%esi; mov %ebp,%edi
        0xFF, 0x05, 0x00, 0x00, 0x20, 0x00,       // incl 0x200000
        0xEB, 0xE8,                               // jmp next
        0xBA, 0xF8, 0x03, 0x00, 0x00, 0xB0, 'B',  // back: mov $0x3f8,%edx; mov $'B',%al
        0xEE, 0xF4, 0xEB, 0xFD,                   // out %al,%dx; 1: hlt; jmp 1b
    };
    return code;
}

} // namespace godwit::machine::testing
