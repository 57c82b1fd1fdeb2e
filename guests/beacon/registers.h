// Known values held in the vector registers and MXCSR while the loop turns: the program is compiled
// to use general registers only, so nothing but a fault of the platform changes them.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { register_count_max = 32, register_words_max = 8 };

struct register_hold { // one per CPU, written by it
    uint64_t expected[register_count_max * register_words_max];
    uint64_t seed;
    uint32_t words; // all registers together; 0: not held
    uint32_t mxcsr;
    uint64_t checks, errors;
};

// Loads the first set of values.
void registers_start(struct register_hold* hold, uint32_t cpu);

// Compares, and every thousand checks loads new values.
void registers_check(struct register_hold* hold, uint32_t cpu);

// "zmm", "ymm" or "xmm": the widest registers this CPU and its XCR0 have.
const char* registers_kind(void);
