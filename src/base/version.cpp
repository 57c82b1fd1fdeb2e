#include "base/version.h"

#include <elf.h>
#include <link.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <string>

// An executable may define this symbol to tell its build apart ("next"); see apps/godwit-vmm. Not
// const: the compiler would take the empty text for the only one.
extern "C" {
__attribute__((weak)) const char* godwit_build_label = "";
}

namespace godwit {

namespace {

/// Looks through the notes of one segment of our own image for the GNU build id.
std::string build_id_in(const char* notes, std::size_t bytes) {
    std::size_t at = 0;
    while (at + sizeof(ElfW(Nhdr)) <= bytes) {
        ElfW(Nhdr) header{};
        std::memcpy(&header, notes + at, sizeof(header));
        const std::size_t name_at = at + sizeof(header);
        const std::size_t content_at = name_at + (header.n_namesz + 3U) / 4U * 4U;
        const std::size_t next = content_at + (header.n_descsz + 3U) / 4U * 4U;
        if (next > bytes) {
            break;
        }
        if (header.n_type == NT_GNU_BUILD_ID && header.n_namesz == 4 &&
            std::memcmp(notes + name_at, "GNU", 4) == 0) {
            static constexpr std::array<char, 17> digits{"0123456789abcdef"};
            std::string hex;
            for (std::size_t i = 0; i < header.n_descsz; ++i) {
                const auto byte = static_cast<unsigned char>(notes[content_at + i]);
                hex += digits[byte >> 4U];
                hex += digits[byte & 15U];
            }
            return hex;
        }
        at = next;
    }
    return {};
}

/// The first object dl_iterate_phdr() reports is the executable itself.
int visit_executable(dl_phdr_info* info, std::size_t, void* found) {
    auto& id = *static_cast<std::string*>(found);
    for (int i = 0; i < info->dlpi_phnum && id.empty(); ++i) {
        const ElfW(Phdr)& segment = info->dlpi_phdr[i];
        if (segment.p_type == PT_NOTE) {
            id = build_id_in(reinterpret_cast<const char*>(info->dlpi_addr + segment.p_vaddr),
                             segment.p_memsz);
        }
    }
    return 1;
}

} // namespace

std::string_view version() noexcept {
    static const std::string text = [] {
        const std::string label = godwit_build_label;
        return label.empty() ? std::string(GODWIT_VERSION)
                             : std::string(GODWIT_VERSION) + "+" + label;
    }();
    return text;
}

std::string_view build_id() noexcept {
    static const std::string id = [] {
        std::string found;
        ::dl_iterate_phdr(visit_executable, &found);
        return found.empty() ? std::string("none") : found;
    }();
    return id;
}

} // namespace godwit
