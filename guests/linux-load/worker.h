// One thread per CPU: memory load, clock and register checks, and the gaps of its CPU.
#pragma once

#include "clocks.h"
#include "memory_load.h"
#include "registers.h"

struct worker {
    uint32_t cpu;
    struct memory_load memory;
    struct clock_watch clock;
    struct register_hold registers;
    _Atomic uint64_t turns;
    _Atomic uint64_t verified_epoch;
};

extern struct worker workers[];
extern uint32_t worker_count;

// Starts them; false if threads or CPUs cannot be had.
bool workers_start(void);
// Every worker checks all its pages; `done_fd` is an eventfd each adds 1 to.
void workers_verify(int done_fd);
bool workers_verified(void);
void workers_stop_load(void);
