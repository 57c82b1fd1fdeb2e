#pragma once

/// The pages a driver names to a balloon, checked and put together into runs.

#include "base/result.h"
#include "base/units.h"
#include "memory/guest_memory.h"
#include "virtio/virt_queue.h"

#include <cstdint>
#include <vector>

namespace godwit::virtio {

/// Pages one chain of the inflate or deflate queue may name; Linux sends 256.
inline constexpr std::uint64_t balloon_pages_per_chain_max = 16384;

struct PageRun {
    PageIndex first;
    std::uint64_t pages = 0;
    friend bool operator==(const PageRun&, const PageRun&) = default;
};

/// The readable part of `chain` as page numbers (le32 each), sorted and coalesced. An error if it
/// is no list of such numbers, too long, or names a page that is not RAM.
[[nodiscard]] Result<std::vector<PageRun>> runs_of(const Chain& chain,
                                                   const memory::GuestMemory& memory);

} // namespace godwit::virtio
