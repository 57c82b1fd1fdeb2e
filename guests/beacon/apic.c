#include "apic.h"

#include "clock.h"
#include "cpu.h"
#include "memory.h"

enum {
    register_id = 0x20,
    register_spurious = 0xf0,
    register_command_low = 0x300,
    register_command_high = 0x310,
    register_timer = 0x320,
    register_initial_count = 0x380,
    register_current_count = 0x390,
    register_divide = 0x3e0,
    divide_by_one = 0xb,
    timer_masked = 0x10000,
    command_init = 0x4500,
    command_startup = 0x4600,
    command_fixed = 0x4000,
    calibration_ticks = 200000,  // KVM's and QEMU's APICs count nanoseconds
    startup_attempts_max = 1000, // one per millisecond
};

extern uint64_t idt[512];
extern char interrupt_stubs[], exception_stubs[];
extern char ap_trampoline[], ap_trampoline_end[];
extern volatile uint32_t ap_cpu_index;

static uint64_t ticks_per_ms;

static volatile uint32_t* apic_register(uint32_t offset) {
    return (volatile uint32_t*)(uintptr_t)(0xfee00000u + offset);
}

static void set_gate(uint32_t vector, uint64_t handler) {
    idt[vector * 2] = (handler & 0xffff) | (uint64_t)SELECTOR_KERNEL_CODE << 16 | 0x8eull << 40 |
                      (handler >> 16 & 0xffff) << 48;
    idt[vector * 2 + 1] = handler >> 32;
}

void interrupts_prepare(void) {
    for (uint32_t vector = 0; vector < 32; ++vector) {
        set_gate(vector, (uintptr_t)exception_stubs + vector * STUB_BYTES);
    }
    for (uint32_t vector = VECTOR_FIRST; vector < 256; ++vector) {
        set_gate(vector, (uintptr_t)interrupt_stubs + (vector - VECTOR_FIRST) * STUB_BYTES);
    }
    // The 8259s are moved out of the exception vectors before they are masked: one of their
    // spurious interrupts would otherwise look like an exception.
    port_write8(0x20, 0x11);
    port_write8(0xa0, 0x11);
    port_write8(0x21, 0x20);
    port_write8(0xa1, 0x28);
    port_write8(0x21, 4);
    port_write8(0xa1, 2);
    port_write8(0x21, 1);
    port_write8(0xa1, 1);
    port_write8(0x21, 0xff);
    port_write8(0xa1, 0xff);
}

void apic_enable(uint32_t cpu) {
    *apic_register(register_spurious) = 0x100 | VECTOR_SPURIOUS;
    *apic_register(register_divide) = divide_by_one;
    *apic_register(register_timer) = VECTOR_TIMER + cpu;
    // A halt that is not entered, for its side effect: it returns with interrupts on.
    halt_unless_moved(&irq_counts[0], ~0ull, &irq_counts[0], ~0ull);
}

// The TSC is read before the counter both times, so that what a read of the counter costs (an exit,
// where the APIC is emulated) falls out of the difference.
static uint64_t measure_tsc_once(uint32_t ticks) {
    *apic_register(register_initial_count) = UINT32_MAX;
    uint64_t start = tsc_read();
    uint32_t first = *apic_register(register_current_count);
    uint64_t end = start;
    uint32_t counted = 0;
    while (counted < ticks) {
        end = tsc_read();
        counted = first - *apic_register(register_current_count);
        if (end - start > 10000000000ull) {
            return 0; // it does not count
        }
    }
    return (end - start) * ticks / counted;
}

static uint64_t median(uint64_t a, uint64_t b, uint64_t c) {
    uint64_t low = a < b ? a : b;
    uint64_t high = a < b ? b : a;
    return c < low ? low : c > high ? high : c;
}

uint64_t apic_timer_measure_tsc(uint32_t ticks) {
    *apic_register(register_divide) = divide_by_one;
    *apic_register(register_timer) = timer_masked | VECTOR_TIMER;
    // Being put aside by the host between the two reads of one pair spoils a measurement.
    uint64_t first = measure_tsc_once(ticks);
    uint64_t second = measure_tsc_once(ticks);
    uint64_t elapsed = median(first, second, measure_tsc_once(ticks));
    *apic_register(register_initial_count) = 0;
    return elapsed;
}

void apic_timer_calibrate(void) {
    uint32_t timer = *apic_register(register_timer);
    uint64_t elapsed = apic_timer_measure_tsc(calibration_ticks);
    *apic_register(register_timer) = timer;
    ticks_per_ms = elapsed == 0 ? 1 : calibration_ticks * clock_us_to_tsc(1000) / elapsed;
}

void apic_timer_arm(uint64_t tsc_deadline) {
    uint64_t now = tsc_read();
    uint64_t ticks = 1;
    if (tsc_deadline > now) {
        uint64_t delta = tsc_deadline - now;
        uint64_t delta_max = clock_us_to_tsc(1000000);
        if (delta > delta_max) {
            delta = delta_max; // an early wake-up is harmless, an overflow would not be
        }
        ticks = delta * ticks_per_ms / clock_us_to_tsc(1000);
    }
    *apic_register(register_initial_count) = ticks == 0           ? 1
                                             : ticks > UINT32_MAX ? UINT32_MAX
                                                                  : (uint32_t)ticks;
}

static void send(uint32_t apic_id, uint32_t command) {
    *apic_register(register_command_high) = apic_id << 24;
    *apic_register(register_command_low) = command;
}

bool apic_start_cpu(uint32_t cpu, uint32_t apic_id, volatile uint32_t* arrived) {
    memcpy((void*)AP_TRAMPOLINE, ap_trampoline, (uint64_t)(ap_trampoline_end - ap_trampoline));
    ap_cpu_index = cpu;
    send(apic_id, command_init);
    // A SIPI that comes before the INIT has been worked off is lost, so it is repeated. A CPU that
    // already runs ignores it.
    for (uint32_t attempt = 0; attempt < startup_attempts_max; ++attempt) {
        uint64_t start = tsc_read();
        while (*arrived == 0 && tsc_read() - start < clock_us_to_tsc(attempt == 0 ? 200 : 1000)) {
            cpu_relax();
        }
        if (*arrived != 0) {
            return true;
        }
        send(apic_id, command_startup | AP_TRAMPOLINE >> 12);
    }
    return false;
}

void apic_wake(uint32_t cpu, uint32_t apic_id) {
    send(apic_id, command_fixed | (VECTOR_TIMER + cpu));
}

uint32_t apic_id_here(void) {
    return *apic_register(register_id) >> 24;
}
