// The memory load and its check: each CPU owns a part of the working set, and every page of it says
// which page it is and how often it was written. The number it should say stands in a table apart.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define NEVER UINT64_MAX

struct memory_load {       // one per CPU, written by it
    uint64_t first, count; // its part of the working set
    uint64_t populated;    // pages that have had their first write
    uint64_t cursor;       // of the sequential pattern
    uint64_t random;
    uint64_t next_write_tsc, tsc_per_page; // pace; 0: as fast as possible
    uint64_t verify_cursor;
    uint64_t writes, checked, errors;
};

// Takes the working set and its table out of RAM; false if RAM is too small.
bool memory_load_prepare(uint64_t bytes);
void memory_load_start(struct memory_load* load, uint32_t cpu, uint32_t cpus);
uint64_t working_set_pages(void);

// Writes a few pages, if due. Returns the TSC when it wants to be called again.
uint64_t memory_load_step(struct memory_load* load, uint32_t cpu, uint64_t now);

// Checks the next few pages. True when the whole part has been checked since the cursor was 0.
bool memory_load_verify_step(struct memory_load* load, uint32_t cpu, uint64_t now);
