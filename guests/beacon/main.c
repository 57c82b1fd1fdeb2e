// Ring 3 begins here on every CPU. The first sets the machine up; then all of them turn the same
// loop: look at the clocks and the registers, write a few pages, and - the first only - serve the
// devices.
#include "acpi.h"
#include "apic.h"
#include "clock.h"
#include "control.h"
#include "cpu.h"
#include "events.h"
#include "heartbeat.h"
#include "journal.h"
#include "options.h"
#include "output.h"
#include "ram.h"
#include "report.h"
#include "vcpu.h"
#include "virtio_console.h"

#include <stddef.h>

enum { halt_us_min = 150 }; // a shorter pause is not worth the exits of a halt

struct vcpu vcpus[CPU_LIMIT];
uint32_t vcpu_count = 1;

static volatile bool load_may_begin;

_Noreturn void cpu_entry(uint32_t cpu);

void vcpus_wake(void) {
    for (uint32_t i = 0; i < vcpu_count; ++i) {
        apic_wake(i, vcpus[i].apic_id);
    }
}

static uint64_t memory_turn(struct vcpu* vcpu, uint32_t cpu, uint64_t now) {
    uint64_t epoch = control_verify_epoch;
    if (vcpu->verified_epoch != epoch) {
        if (vcpu->verify_epoch != epoch) {
            vcpu->verify_epoch = epoch;
            vcpu->memory.verify_cursor = 0;
        }
        if (memory_load_verify_step(&vcpu->memory, cpu, now)) {
            vcpu->verified_epoch = epoch;
            apic_wake(0, vcpus[0].apic_id);
        }
        return now;
    }
    return control_stopping ? NEVER : memory_load_step(&vcpu->memory, cpu, now);
}

static uint64_t earlier(uint64_t left, uint64_t right) {
    return left < right ? left : right;
}

static uint64_t device_turn(uint64_t now) {
    uint64_t due = journal_step(now);
    due = earlier(due, heartbeat_step(now));
    due = earlier(due, control_step(now));
    return output_step() ? now : due;
}

_Noreturn static void turn_for_ever(uint32_t cpu) {
    struct vcpu* vcpu = &vcpus[cpu];
    volatile uint64_t* ticks = &irq_counts[VECTOR_TIMER + cpu];
    gaps_start(&vcpu->gaps, tsc_read());
    for (;;) {
        // Taken before anything is looked at, so that what happens afterwards prevents the halt.
        uint64_t ticks_seen = *ticks;
        volatile uint64_t* wakes = cpu == 0 ? &device_wakes : ticks;
        uint64_t wakes_seen = *wakes;

        uint64_t now = clock_check(cpu, &vcpu->clock);
        gaps_turn(&vcpu->gaps, now);
        registers_check(&vcpu->registers, cpu);
        uint64_t due = memory_turn(vcpu, cpu, now);
        if (cpu == 0) {
            due = earlier(due, device_turn(now));
        }
        if (due > now && due - now > clock_us_to_tsc(halt_us_min)) {
            if (due != NEVER) {
                apic_timer_arm(due);
            }
            halt_unless_moved(ticks, ticks_seen, wakes, wakes_seen);
            gaps_after_halt(&vcpu->gaps, due, tsc_read());
        }
    }
}

static void start_output(void) {
    if ((options.out & output_virtio) == 0) {
        return;
    }
    if (!virtio_console_open()) {
        control_refuse("out: no virtio console, or it refuses", "console");
    }
    output_choose(options.out);
}

static void start_devices(void) {
    const char* reason;
    if (options.disk != 0 && !journal_start(&reason)) {
        control_refuse(reason, "disk");
    }
    if (options.net != 0 && !heartbeat_start()) {
        control_refuse("net: no virtio-net device, or it refuses", "net");
    }
}

static void start_cpus(void) {
    uint32_t wanted = acpi.cpu_count;
    if (options.cpus != 0 && options.cpus < wanted) {
        wanted = (uint32_t)options.cpus;
    }
    for (uint32_t i = 0; i < acpi.cpu_count && vcpu_count < wanted; ++i) {
        if (acpi.apic_ids[i] == vcpus[0].apic_id) {
            continue;
        }
        struct vcpu* vcpu = &vcpus[vcpu_count];
        vcpu->apic_id = acpi.apic_ids[i];
        if (!apic_start_cpu(vcpu_count, vcpu->apic_id, &vcpu->arrived)) {
            control_refuse("a CPU does not start", "cpus");
        }
        ++vcpu_count;
    }
    for (uint32_t i = 0; i < vcpu_count; ++i) {
        memory_load_start(&vcpus[i].memory, i, vcpu_count);
    }
}

_Noreturn static void first_cpu(void) {
    interrupts_prepare();
    clock_start();
    vcpus[0].apic_id = apic_id_here();
    apic_enable(0);
    output_start();
    if (!ram_read_start_info()) {
        control_refuse("no PVH start info with a memory map", "boot");
    }
    acpi_read(start_info_rsdp);
    const char* word = options_parse(command_line);
    if (word != NULL) {
        control_refuse("command line", word);
    }
    apic_timer_calibrate();
    start_output();
    start_devices();
    if (!memory_load_prepare(options.mem_set_bytes)) {
        control_refuse("mem_set: not enough RAM", command_line);
    }
    start_cpus();
    report_boot();
    if (options.sse != 0) {
        registers_start(&vcpus[0].registers, 0);
    }
    control_start(tsc_read());
    load_may_begin = true;
    vcpus_wake();
    turn_for_ever(0);
}

void cpu_entry(uint32_t cpu) {
    if (cpu == 0) {
        first_cpu();
    }
    apic_enable(cpu);
    vcpus[cpu].arrived = 1;
    volatile uint64_t* ticks = &irq_counts[VECTOR_TIMER + cpu];
    for (;;) {
        uint64_t seen = *ticks;
        if (load_may_begin) {
            break;
        }
        halt_unless_moved(ticks, seen, ticks, seen);
    }
    if (options.sse != 0) {
        registers_start(&vcpus[cpu].registers, cpu);
    }
    turn_for_ever(cpu);
}
