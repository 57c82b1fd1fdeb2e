#pragma once

/// Page tables filled before they are needed: what guest RAM holds is mapped in this process at
/// once instead of at the guest's first touch of each page (requirement I-6). Any one thread; the
/// guest may run elsewhere meanwhile.

#include "base/result.h"
#include "base/units.h"
#include "memory/guest_memory.h"

#include <cstdint>
#include <functional>

namespace godwit::memory {

/// Guest addresses of one step.
struct WarmStep {
    Gpa start;
    std::uint64_t bytes = 0;
};

/// Maps every page that `backing`, the object behind `memory`, holds; pages it never had stay
/// holes. `mapped` hears of each step, of at most 4 MiB, and ends it by false. The value is how
/// many bytes were mapped.
[[nodiscard]] Result<std::uint64_t> warm(const GuestMemory& memory,
                                         const RamBacking& backing,
                                         const std::function<bool(WarmStep)>& mapped);

} // namespace godwit::memory
