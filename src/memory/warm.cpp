#include "memory/warm.h"

#include "memory/data_runs.h"

#include <algorithm>
#include <vector>

namespace godwit::memory {

namespace {

constexpr std::uint64_t step_bytes = 4 * mib;

/// Where a run of the backing lies in the machine's layout.
struct Piece {
    std::uint64_t backing_offset = 0;
    std::uint64_t layout_offset = 0;
    std::uint64_t bytes = 0;
};

std::vector<Piece> pieces_of(const RamSpec& spec) {
    if (spec.kind != RamKind::pool) {
        return {{.backing_offset = 0, .layout_offset = 0, .bytes = spec.bytes}};
    }
    std::vector<Piece> pieces;
    std::uint64_t at = 0;
    for (const PoolRun& run : spec.runs) {
        pieces.push_back({.backing_offset = run.offset, .layout_offset = at, .bytes = run.bytes});
        at += run.bytes;
    }
    return pieces;
}

/// The step from `offset` of the layout that stays within one region.
struct Place {
    WarmStep step;
    std::byte* host = nullptr;
};

Result<Place> place_of(const GuestMemory& memory, std::uint64_t offset, std::uint64_t bytes_max) {
    for (const GuestMemory::Region& region : memory.regions()) {
        if (offset >= region.ram.offset && offset - region.ram.offset < region.ram.bytes) {
            const std::uint64_t into = offset - region.ram.offset;
            return Place{
                .step = {.start = Gpa{region.ram.start.value + into},
                         .bytes = std::min({bytes_max, step_bytes, region.ram.bytes - into})},
                .host = region.host + into};
        }
    }
    return Error(ErrorCode::internal, "guest memory has no place for a part of its backing");
}

} // namespace

Result<std::uint64_t> warm(const GuestMemory& memory,
                           const RamBacking& backing,
                           const std::function<bool(WarmStep)>& mapped) {
    std::uint64_t total = 0;
    for (const Piece& piece : pieces_of(backing.spec())) {
        const std::uint64_t end = piece.backing_offset + piece.bytes;
        DataRun run = GODWIT_TRY(next_data(backing.fd(), piece.backing_offset, end));
        while (run.start < run.end) {
            const std::uint64_t offset = run.start - piece.backing_offset + piece.layout_offset;
            const Place place = GODWIT_TRY(place_of(memory, offset, run.end - run.start));
            GODWIT_TRY(sys::populate_for_writing({place.host, place.step.bytes}));
            total += place.step.bytes;
            if (!mapped(place.step)) {
                return total;
            }
            run.start += place.step.bytes;
            if (run.start == run.end) {
                run = GODWIT_TRY(next_data(backing.fd(), run.end, end));
            }
        }
    }
    return total;
}

} // namespace godwit::memory
