// The guest's clocks, which must never run back, and the gaps in its time.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { gaps_kept = 8 };

struct gap {
    uint64_t us, at_us;
};

// Written by its thread only; read by the reporting one, which may see a torn pair of us and at_us.
struct clock_watch {
    uint64_t last_monotonic_ns, last_boottime_ns, last_tsc;
    _Atomic uint64_t readings, backwards;
    struct gap widest[gaps_kept];
    struct gap widest_total;
    uint64_t floor_us; // a gap not wider than this is not kept
    atomic_bool reset_requested;
};

void clocks_start(void);
uint64_t clocks_now_ns(void); // CLOCK_MONOTONIC
uint64_t clocks_since_start_us(void);
// The name of the kernel's clock source, "unknown" if it does not say.
const char* clocks_source(void);

// Reads all clocks and compares them with what this and the other threads have seen before.
// Returns CLOCK_MONOTONIC in nanoseconds.
uint64_t clocks_check(struct clock_watch* watch, uint32_t cpu);
// Notes that the thread should have got a turn at `expected_ns` and got it at `now_ns`.
void gap_note(struct clock_watch* watch, uint64_t expected_ns, uint64_t now_ns);
struct gap gap_widest(const struct clock_watch* watch);
