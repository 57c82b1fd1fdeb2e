// The four functions GCC may call on its own even in freestanding code, and the checksum of lines
// and frames.
#pragma once

#include <stddef.h>
#include <stdint.h>

void* memcpy(void* restrict to, const void* restrict from, size_t bytes);
void* memmove(void* to, const void* from, size_t bytes);
void* memset(void* to, int value, size_t bytes);
int memcmp(const void* left, const void* right, size_t bytes);

// FNV-1a, 32 bits.
uint32_t fnv1a32(const void* data, size_t bytes);

// One step of the 64-bit hash of pages and blocks, see README.md.
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

// A number below `limit` from the upper half of a random one.
static inline uint64_t random_below(uint64_t* state, uint64_t limit) {
    return (random_next(state) >> 32) * limit >> 32;
}
