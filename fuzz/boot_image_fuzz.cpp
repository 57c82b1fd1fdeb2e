// Kernel files: ELF and bzImage. Accepted or refused, nothing outside the guest's memory is
// touched, and an accepted kernel begins inside it.
#include "machine/boot/boot.h"
#include "memory/guest_memory.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace {

using namespace godwit;

std::shared_ptr<memory::GuestMemory> make_memory() {
    memory::RamSpec spec;
    spec.bytes = 32 * mib;
    // Without 32 MiB of memory there is nothing to fuzz.
    const auto backing = GODWIT_MUST(memory::RamBacking::create("fuzz", spec));
    return GODWIT_MUST(memory::GuestMemory::map(backing, sys::MapMode::shared));
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const std::shared_ptr<memory::GuestMemory> ram = make_memory();
    const auto file = sys::create_memfd("kernel", size);
    if (!file.has_value() ||
        !sys::pwrite_all(*file, std::as_bytes(std::span(data, size)), 0).has_value()) {
        return 0;
    }
    machine::KernelSpec kernel;
    kernel.path = "/proc/self/fd/" + std::to_string(file->raw());
    const auto entry = machine::boot::load_kernel(*ram, kernel, Gpa{0xE'0000});
    if (entry.has_value() && !ram->contains(entry->instruction, 1)) {
        std::abort();
    }
    return 0;
}
