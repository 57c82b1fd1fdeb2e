// What the program knows about each of its CPUs.
#pragma once

#include "clock.h"
#include "gaps.h"
#include "layout.h"
#include "memload.h"
#include "registers.h"

#include <stdint.h>

struct vcpu {
    uint32_t apic_id;
    volatile uint32_t arrived; // set by the CPU when it has reached ring 3
    struct clock_checks clock;
    struct gaps gaps;
    struct memory_load memory;
    struct register_hold registers;
    uint64_t verify_epoch;            // the verification it works on
    volatile uint64_t verified_epoch; // the newest one it has finished
} __attribute__((aligned(64)));

extern struct vcpu vcpus[CPU_LIMIT];
extern uint32_t vcpu_count;

// Ends a halt of every CPU.
void vcpus_wake(void);
