#include "block/segments.h"

#include <algorithm>
#include <cstring>

namespace godwit::block {

namespace {

/// Calls `piece(start, length)` for each stretch of memory of [offset, offset + bytes).
template <typename Piece>
void for_each_piece(std::span<const iovec> segments,
                    std::uint64_t offset,
                    std::uint64_t bytes,
                    Piece piece) {
    for (const iovec& segment : segments) {
        if (bytes == 0) {
            return;
        }
        if (offset >= segment.iov_len) {
            offset -= segment.iov_len;
            continue;
        }
        const std::uint64_t length = std::min<std::uint64_t>(segment.iov_len - offset, bytes);
        piece(static_cast<std::byte*>(segment.iov_base) + offset, length);
        offset = 0;
        bytes -= length;
    }
}

} // namespace

void slice(std::span<const iovec> segments,
           std::uint64_t offset,
           std::uint64_t bytes,
           std::vector<iovec>& out) {
    out.clear();
    for_each_piece(segments, offset, bytes, [&](std::byte* start, std::uint64_t length) {
        out.push_back({.iov_base = start, .iov_len = length});
    });
}

void gather(std::span<const iovec> segments, std::uint64_t offset, std::span<std::byte> to) {
    std::byte* next = to.data();
    for_each_piece(segments, offset, to.size(), [&](const std::byte* start, std::uint64_t length) {
        std::memcpy(next, start, length);
        next += length;
    });
}

void scatter(std::span<const std::byte> from,
             std::span<const iovec> segments,
             std::uint64_t offset) {
    const std::byte* next = from.data();
    for_each_piece(segments, offset, from.size(), [&](std::byte* start, std::uint64_t length) {
        std::memcpy(start, next, length);
        next += length;
    });
}

bool is_aligned(std::span<const iovec> segments, MemoryAlignment alignment) noexcept {
    return std::ranges::all_of(segments, [&](const iovec& segment) {
        return reinterpret_cast<std::uintptr_t>(segment.iov_base) % alignment.address_bytes == 0 &&
               segment.iov_len % alignment.length_bytes == 0;
    });
}

} // namespace godwit::block
