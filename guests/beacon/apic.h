// Local APIC in xAPIC mode, programmed from ring 3, and the interrupt table.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// Interrupts per vector since boot, and of all device vectors together: written by the ring-0
// stubs.
extern volatile uint64_t irq_counts[256];
extern volatile uint64_t device_wakes;

// Fills the IDT and silences the 8259s. Once, by the first CPU, before apic_enable().
void interrupts_prepare(void);

// Turns on this CPU's APIC and interrupts.
void apic_enable(uint32_t cpu);

// Ticks of the APIC timer per millisecond, measured against the TSC. Once, by the first CPU.
void apic_timer_calibrate(void);

// TSC ticks in the time the APIC timer counts down `ticks`.
uint64_t apic_timer_measure_tsc(uint32_t ticks);

// One timer interrupt on this CPU at the given TSC (at once if that has passed).
void apic_timer_arm(uint64_t tsc_deadline);

// INIT and SIPI to the CPU; it appears in cpu_entry() of main.c. False if it does not within 1 s.
bool apic_start_cpu(uint32_t cpu, uint32_t apic_id, volatile uint32_t* arrived);

// An interrupt that ends a halt of the CPU.
void apic_wake(uint32_t cpu, uint32_t apic_id);

uint32_t apic_id_here(void);
