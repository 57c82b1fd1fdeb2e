// Checksums and pseudo-random numbers of pages, blocks, lines and datagrams: the formats are
// beacon's (guests/beacon/README.md, "Formats"), written again here so that each checks the other's
// tools.
#pragma once

#include <stddef.h>
#include <stdint.h>

// FNV-1a, 32 bits.
static inline uint32_t fnv1a32(const void* data, size_t bytes) {
    const unsigned char* cursor = data;
    uint32_t value = 0x811c9dc5u;
    for (size_t i = 0; i < bytes; ++i) {
        value = (value ^ cursor[i]) * 0x01000193u;
    }
    return value;
}

// One step of the 64-bit hash of pages and blocks.
static inline uint64_t hash_step(uint64_t hash, uint64_t word) {
    hash = (hash ^ word) * 0x9e3779b97f4a7c15ull;
    return hash ^ hash >> 29;
}

// xorshift64: the next number after a non-zero one.
static inline uint64_t random_next(uint64_t* state) {
    uint64_t value = *state;
    value ^= value << 13;
    value ^= value >> 7;
    value ^= value << 17;
    return *state = value;
}

// A number below `limit` (below 2^32) from the upper half of a random one.
static inline uint64_t random_below(uint64_t* state, uint64_t limit) {
    return (random_next(state) >> 32) * limit >> 32;
}
