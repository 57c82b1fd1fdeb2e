// The memory load: pages that carry their index and sequence, and a table that knows what they must
// hold.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

// One thread's part; touched by that thread only, except for the counters.
struct memory_load {
    uint64_t first, count, cursor, random;
    uint64_t due_ns; // when the next write of a paced load is due
    _Atomic uint64_t writes, checked, errors, populated, verified;
};

// Takes the working set; false if there is not enough memory.
bool memory_load_prepare(uint64_t bytes);
uint64_t memory_load_pages(void);
void memory_load_start(struct memory_load* load, uint32_t cpu, uint32_t cpus);
// One turn: writes a few pages, after checking what they held. `cpus` share the rate.
void memory_load_step(struct memory_load* load, uint32_t cpu, uint32_t cpus, uint64_t now_ns);
// Checks the next pages of the part; true once all have been.
bool memory_load_verify_step(struct memory_load* load, uint32_t cpu);
