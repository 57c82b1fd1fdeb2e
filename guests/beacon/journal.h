// The disk load and its check: self-describing blocks (README.md, "Blocks"), a table of the newest
// acknowledged write of each block, and reads that must find exactly that. First CPU only.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct journal_counts {
    uint64_t writes, reads, flushes, verified, errors;
    uint64_t in_flight;
    uint64_t latency_max_us;
    uint64_t newest_acknowledged; // highest sequence acknowledged
    uint64_t flushed;             // every write up to this sequence was acknowledged, then flushed
    uint64_t blocks_written;      // blocks with an acknowledged write
};

extern struct journal_counts journal_counts;

// Opens the disk named by the options; false with a reason when that cannot be.
bool journal_start(const char** reason);

uint64_t journal_run_id(void);
uint64_t journal_blocks(void);

// One turn: takes completions, submits what is due. Returns the TSC when it wants to be called
// again (NEVER: when an interrupt comes).
uint64_t journal_step(uint64_t now);

// From now on: no new writes, flush, read every block back. Ended by journal_verify_end().
void journal_verify_begin(void);
bool journal_verify_done(void);
void journal_verify_end(void);
