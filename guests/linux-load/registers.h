// Values held in the widest vector registers there are, across system calls and short spins.
#pragma once

#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

enum { register_words_max = 32 * 8 };

struct register_hold {
    uint32_t words; // 0: off
    uint32_t turns;
    uint32_t mxcsr;
    uint64_t seed;
    uint64_t expected[register_words_max];
    _Atomic uint64_t checks, errors;
};

// "xmm", "ymm" or "zmm".
const char* registers_kind(void);
void registers_start(struct register_hold* hold, uint32_t cpu);
// Sleeps until `deadline` (CLOCK_MONOTONIC) with the registers loaded, spins a moment, and checks
// them.
void registers_sleep(struct register_hold* hold, uint32_t cpu, const struct timespec* deadline);
// The same without the sleep: the thread gives its turn away instead.
void registers_yield(struct register_hold* hold, uint32_t cpu);
