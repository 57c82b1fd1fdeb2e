// Time: TSC, kvmclock where there is one, and the checks that neither runs backwards.
#pragma once

#include <stdbool.h>
#include <stdint.h>

extern uint64_t entry_tsc; // read by the first instructions of the guest

struct clock_checks { // one per CPU, written by it
    uint64_t last_tsc;
    uint64_t last_kvmclock_ns;
    uint64_t tsc_backwards;
    uint64_t kvmclock_backwards;
    int64_t kvmclock_ahead_min_ns; // kvmclock minus TSC time, relative to the first reading
    int64_t kvmclock_ahead_max_ns;
    int64_t kvmclock_base_ns;
    uint64_t readings;
};

// Finds the TSC frequency. Once, by the first CPU.
void clock_start(void);

uint64_t clock_tsc_khz(void);
const char* clock_tsc_source(void);
bool clock_has_kvmclock(void);

uint64_t clock_us_to_tsc(uint64_t us);
uint64_t clock_tsc_to_us(uint64_t tsc_delta);

// Microseconds since the first instruction.
uint64_t clock_us(uint64_t tsc);

// Reads both clocks on this CPU and compares them with the CPU's own last reading and with the
// newest reading of any CPU. Returns the TSC.
uint64_t clock_check(uint32_t cpu, struct clock_checks* checks);
