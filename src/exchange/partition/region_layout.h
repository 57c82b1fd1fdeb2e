#pragma once

/// The bytes of the region two instances share while they divide a host
/// (docs/formats/partition-region.md). Little-endian. Only partition/ includes this.

#include "base/units.h"

#include <array>
#include <cstddef>
#include <cstdint>

namespace godwit::exchange::partition::layout {

inline constexpr std::array<char, 8> magic = {'G', 'O', 'D', 'W', 'P', 'A', 'R', 'T'};
inline constexpr std::uint32_t version = 1;
inline constexpr std::size_t ring_slots = 256;
inline constexpr std::size_t cpus = 1024;
inline constexpr std::size_t programs = 256;
inline constexpr std::size_t program_extents = 512;
inline constexpr std::size_t estate_extents = 64;
inline constexpr std::size_t name_bytes = 64;

struct Header {
    std::array<char, 8> magic;
    std::uint32_t version;
    std::uint32_t reserved;
    std::uint64_t bytes;
    std::uint64_t pool_id;
    std::uint32_t old_instance;
    std::uint32_t new_instance;
    std::uint64_t checksum; ///< XXH3 of everything before it.
    std::array<std::uint8_t, 4048> padding;
};
static_assert(sizeof(Header) == page_size);

/// What one side says about itself; a cache line of its own.
struct Side {
    std::uint64_t beats;
    std::int64_t beat_ns;
    std::array<std::uint8_t, 48> padding;
};
static_assert(sizeof(Side) == 64);

struct Message {
    std::uint64_t sequence;
    std::uint32_t type;
    std::uint32_t subject;
    std::uint64_t value;
    std::uint64_t checksum; ///< XXH3 of everything before it.
};
static_assert(sizeof(Message) == 32);

struct Ring {
    std::uint64_t written;
    std::array<std::uint8_t, 56> written_padding;
    std::uint64_t read;
    std::array<std::uint8_t, 56> read_padding;
    std::array<Message, ring_slots> slots;
};
static_assert(sizeof(Ring) == 128 + ring_slots * 32);

struct Extent {
    std::uint64_t first;
    std::uint64_t frames;
    std::uint64_t tag;
    std::uint64_t position;
    std::uint32_t owner;
    std::uint32_t epoch;
    std::uint32_t purpose;
    std::uint32_t reserved;
};
static_assert(sizeof(Extent) == 48);

struct ProgramBody {
    std::uint64_t tag;
    std::uint64_t state_bytes;
    std::uint32_t kind;
    std::uint32_t memory_extents;
    std::uint32_t state_extents;
    std::uint32_t reserved;
    std::array<char, name_bytes> name;
    std::array<Extent, program_extents> extents; ///< Memory first, then state.
};
struct Program {
    std::uint64_t word;     ///< Owner (instance id) << 32 | epoch; the commit of one program.
    std::uint64_t checksum; ///< XXH3 of the body.
    ProgramBody body;
};

struct EstateBody {
    std::uint64_t generation;
    std::int64_t written_ns;
    std::int64_t deadline_ns;
    std::uint32_t last_cpu;
    std::uint32_t extents_count;
    std::array<Extent, estate_extents> extents;
};
struct Estate {
    std::uint64_t sealed; ///< Generation of the sealed body, 0 if none is.
    std::uint64_t checksum;
    EstateBody body;
};

struct Region {
    Header header;
    std::array<Side, 2> sides;                 ///< Old, new.
    std::array<std::uint64_t, cpus> cpu_words; ///< Owner << 32 | epoch; 0: not part of this.
    std::array<Ring, 2> rings;                 ///< Old to new, new to old.
    Estate estate;
    std::array<Program, programs> program;
};
inline constexpr std::uint64_t region_bytes = round_up(sizeof(Region), page_size);

} // namespace godwit::exchange::partition::layout
