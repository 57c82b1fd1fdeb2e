#pragma once

/// Scatter lists: parts of them, and copies between them and flat memory. Free functions without
/// state; offsets and lengths are bytes within the list's total.

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace godwit::block {

/// Replaces `out` by the segments of [offset, offset + bytes) of `segments`.
void slice(std::span<const iovec> segments,
           std::uint64_t offset,
           std::uint64_t bytes,
           std::vector<iovec>& out);

/// Copies [offset, offset + to.size()) of the list into `to`.
void gather(std::span<const iovec> segments, std::uint64_t offset, std::span<std::byte> to);
/// Copies `from` over [offset, offset + from.size()) of the list.
void scatter(std::span<const std::byte> from,
             std::span<const iovec> segments,
             std::uint64_t offset);

/// What direct transfers ask of memory.
struct MemoryAlignment {
    std::uint32_t address_bytes = 1;
    std::uint32_t length_bytes = 1;
};
[[nodiscard]] bool is_aligned(std::span<const iovec> segments, MemoryAlignment alignment) noexcept;

} // namespace godwit::block
