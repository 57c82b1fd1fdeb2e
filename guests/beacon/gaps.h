// How long a CPU stood still against its will: the time between two turns of its loop, or how late
// it came out of a halt compared with the programmed wake-up. A voluntary halt itself is no gap.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { gaps_kept = 8 };

struct gap {
    uint64_t us, at_us;
};

struct gaps {                      // one per CPU, written by it
    uint64_t expected_tsc;         // when the loop last turned, or should have turned
    uint64_t floor_tsc;            // what a gap must exceed to be kept below
    struct gap widest[gaps_kept];  // since reset, unsorted
    struct gap widest_total;       // since start
    volatile bool reset_requested; // set by the first CPU
};

void gaps_start(struct gaps* gaps, uint64_t now);
void gaps_turn(struct gaps* gaps, uint64_t now);

// After a halt that was to end at `deadline`.
void gaps_after_halt(struct gaps* gaps, uint64_t deadline, uint64_t now);

struct gap gaps_widest(const struct gaps* gaps);
