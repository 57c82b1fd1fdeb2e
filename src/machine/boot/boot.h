#pragma once

/// Puts a kernel, its initrd and its command line into a new machine's memory and the first vCPU at
/// its entry: PVH ELF images (vmlinux, beacon) and bzImages (vmlinuz), told apart by their magic.
/// Kernel files are hostile input: every offset and size is checked. Control thread, at rest.

#include "base/result.h"
#include "base/units.h"
#include "kvm/vcpu.h"
#include "machine/boot/boot_layout.h"
#include "machine/machine_spec.h"
#include "memory/guest_memory.h"

#include <cstdint>

namespace godwit::machine::boot {

/// The processor's state at the first instruction.
struct Entry {
    enum class Mode : std::uint8_t {
        protected_32, ///< PVH: flat 32-bit, no paging, ebx = info.
        long_64,      ///< Linux 64-bit boot protocol: identity map, rsi = info.
    };
    Mode mode = Mode::protected_32;
    Gpa instruction;
};

/// Loads everything. `rsdp` is where the ACPI tables begin. Errors name the file and say what to
/// do.
[[nodiscard]] Result<Entry>
load_kernel(memory::GuestMemory& memory, const KernelSpec& kernel, Gpa rsdp);

/// Sets the first vCPU's registers.
[[nodiscard]] Status set_entry(const kvm::Vcpu& vcpu, const Entry& entry);

} // namespace godwit::machine::boot
