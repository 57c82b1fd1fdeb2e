#pragma once

/// The bytes of an ownership table as they lie in shared memory (docs/formats/memory-pool.md).
/// Little-endian, as the only architecture we run on. Only pool/ includes this.

#include "memory/pool/extent.h"

#include <array>
#include <cstddef>
#include <cstdint>

namespace godwit::memory::table {

inline constexpr std::array<char, 8> magic = {'G', 'O', 'D', 'W', 'P', 'O', 'O', 'L'};
inline constexpr std::uint32_t version = 1;
/// Owner slots are numbers from 1; 0 owns nothing.
inline constexpr std::size_t owner_slots = 256;

struct Header {
    std::array<char, 8> magic;
    std::uint32_t version;
    std::uint32_t reserved;
    std::uint64_t frame_bytes;
    std::uint64_t frames;
    std::uint64_t log_records;
    std::uint64_t pool_id;
    std::uint64_t checksum; ///< XXH3 of everything before it.
    std::uint64_t padding;
};
static_assert(sizeof(Header) == 64);

/// One per frame; meaningful where an extent starts.
struct Entry {
    std::uint64_t word; ///< Owner slot, epoch and frames; every change is a compare-and-swap.
    std::uint64_t tag;
    std::uint64_t position;
    std::uint32_t purpose;
    std::uint32_t reserved;
};
static_assert(sizeof(Entry) == 32);

struct LogHeader {
    std::uint64_t next; ///< Records ever begun, also those that found no room.
    std::array<std::uint64_t, 7> reserved;
};
static_assert(sizeof(LogHeader) == 64);

struct LogRecord {
    std::uint64_t state; ///< 0 unused, 1 begun, 2 done, 3 did not happen.
    std::uint64_t kind;
    std::uint64_t first;
    std::uint64_t before;
    std::uint64_t after;
    std::uint64_t other_first;
    std::uint64_t other_before;
    std::uint64_t other_after;
};
static_assert(sizeof(LogRecord) == 64);

/// Owner slot (8 bits), epoch (32), frames (24).
struct Word {
    std::uint32_t slot = 0;
    std::uint32_t epoch = 0;
    std::uint64_t frames = 0;
    friend auto operator<=>(const Word&, const Word&) = default;
};

[[nodiscard]] constexpr std::uint64_t pack(const Word& word) noexcept {
    return std::uint64_t{word.slot} << 56U | std::uint64_t{word.epoch} << 24U | word.frames;
}
[[nodiscard]] constexpr Word unpack(std::uint64_t word) noexcept {
    return {.slot = static_cast<std::uint32_t>(word >> 56U),
            .epoch = static_cast<std::uint32_t>(word >> 24U),
            .frames = word & pool_frames_max};
}

inline constexpr std::uint64_t slots_offset = sizeof(Header);
inline constexpr std::uint64_t entries_offset = slots_offset + owner_slots * sizeof(std::uint64_t);
[[nodiscard]] constexpr std::uint64_t log_offset(std::uint64_t frames) noexcept {
    return entries_offset + frames * sizeof(Entry);
}
[[nodiscard]] constexpr std::uint64_t bytes(std::uint64_t frames,
                                            std::uint64_t log_records) noexcept {
    return round_up(log_offset(frames) + sizeof(LogHeader) + log_records * sizeof(LogRecord),
                    page_size);
}

} // namespace godwit::memory::table
