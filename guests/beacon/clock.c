#include "clock.h"

#include "apic.h"
#include "cpu.h"
#include "events.h"

enum { pvclock_tsc_stable = 1 };

struct pvclock { // pvclock_vcpu_time_info of KVM's MSR 0x4b564d01
    uint32_t version, padding;
    uint64_t tsc_timestamp, system_time_ns;
    uint32_t tsc_to_system_mul;
    int8_t tsc_shift;
    uint8_t flags;
    uint8_t padding2[2 + 32];
};
_Static_assert(sizeof(struct pvclock) == 64, "the stub registers one every 64 bytes");

extern volatile struct pvclock pvclock_area[CPU_LIMIT];

static uint64_t khz;
static const char* khz_source;
static uint64_t us_multiplier; // microseconds per tick, 48 binary places
static volatile uint64_t newest_tsc;
static volatile uint64_t newest_kvmclock_ns;

static uint64_t khz_of_kvmclock(void) {
    const volatile struct pvclock* clock = &pvclock_area[0];
    if (clock->tsc_to_system_mul == 0) {
        return 0;
    }
    uint64_t value = (1000000ull << 32) / clock->tsc_to_system_mul;
    return clock->tsc_shift < 0 ? value << -clock->tsc_shift : value >> clock->tsc_shift;
}

static uint64_t khz_of_cpuid(void) {
    if (cpuid(0x40000000, 0).eax >= 0x40000010 && cpuid(0x40000000, 0).eax < 0x40000100) {
        return cpuid(0x40000010, 0).eax;
    }
    if (cpuid(0, 0).eax >= 0x15) {
        struct cpuid_result ratio = cpuid(0x15, 0);
        if (ratio.eax != 0 && ratio.ebx != 0 && ratio.ecx != 0) {
            return (uint64_t)ratio.ecx * ratio.ebx / ratio.eax / 1000;
        }
    }
    return 0;
}

// Channel 2 of the PIT counts down 2 ms; its output is bit 5 of port 0x61.
static uint64_t measure_pit(void) {
    const uint32_t count = 2386;
    port_write8(0x61, (port_read8(0x61) & 0xfc) | 1);
    port_write8(0x43, 0xb0);
    port_write8(0x42, count & 0xff);
    port_write8(0x42, count >> 8);
    uint64_t start = tsc_read();
    while ((port_read8(0x61) & 0x20) == 0) {
        if (tsc_read() - start > 1000000000) {
            return 0;
        }
    }
    return (tsc_read() - start) / 2;
}

// The shortest of three: being put aside by the host can only make one longer.
static uint64_t khz_of_pit(void) {
    uint64_t shortest = UINT64_MAX;
    for (uint32_t i = 0; i < 3; ++i) {
        uint64_t value = measure_pit();
        shortest = value < shortest ? value : shortest;
    }
    return shortest;
}

// The APIC timers of KVM and QEMU count nanoseconds.
static uint64_t khz_of_apic(void) {
    return apic_timer_measure_tsc(1000000);
}

void clock_start(void) {
    static const struct {
        const char* name;
        uint64_t (*read)(void);
    } sources[] = {{"kvmclock", khz_of_kvmclock},
                   {"cpuid", khz_of_cpuid},
                   {"pit", khz_of_pit},
                   {"apic", khz_of_apic}};
    khz = 1000000;
    khz_source = "assumed";
    for (uint32_t i = 0; i < sizeof sources / sizeof sources[0]; ++i) {
        uint64_t value = sources[i].read();
        if (value >= 10000 && value < 100000000) {
            khz = value;
            khz_source = sources[i].name;
            break;
        }
    }
    us_multiplier = (1000ull << 48) / khz;
}

uint64_t clock_tsc_khz(void) {
    return khz;
}

const char* clock_tsc_source(void) {
    return khz_source;
}

bool clock_has_kvmclock(void) {
    return pvclock_area[0].tsc_to_system_mul != 0;
}

uint64_t clock_us_to_tsc(uint64_t us) {
    return us * khz / 1000;
}

uint64_t clock_tsc_to_us(uint64_t tsc_delta) {
    return (uint64_t)((unsigned __int128)tsc_delta * us_multiplier >> 48);
}

uint64_t clock_us(uint64_t tsc) {
    return clock_tsc_to_us(tsc - entry_tsc);
}

struct reading {
    uint64_t tsc;
    uint64_t kvmclock_ns;
    bool stable; // kvmclock may be compared between CPUs
};

static struct reading read_both(uint32_t cpu) {
    const volatile struct pvclock* clock = &pvclock_area[cpu];
    struct reading reading;
    uint32_t version;
    do {
        version = clock->version;
        compiler_barrier();
        reading.tsc = tsc_read();
        uint64_t delta = reading.tsc - clock->tsc_timestamp;
        delta = clock->tsc_shift < 0 ? delta >> -clock->tsc_shift : delta << clock->tsc_shift;
        reading.kvmclock_ns = clock->system_time_ns +
                              (uint64_t)((unsigned __int128)delta * clock->tsc_to_system_mul >> 32);
        reading.stable = (clock->flags & pvclock_tsc_stable) != 0;
        compiler_barrier();
    } while ((version & 1) != 0 || version != clock->version);
    return reading;
}

static void raise_to(volatile uint64_t* newest, uint64_t value) {
    uint64_t current = *newest;
    while (current < value &&
           !__atomic_compare_exchange_n(
               newest, &current, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}

static void complain(const char* kind, uint32_t cpu, uint64_t now, uint64_t before) {
    if (error_begin(kind)) {
        event_number("cpu", cpu);
        event_number("now", now);
        event_number("before", before);
        event_end();
    }
}

static void check_kvmclock(uint32_t cpu,
                           struct clock_checks* checks,
                           struct reading reading,
                           uint64_t newest_ns) {
    uint64_t before = checks->last_kvmclock_ns;
    if (reading.stable && newest_ns > before) {
        before = newest_ns;
    }
    if (reading.kvmclock_ns < before) {
        ++checks->kvmclock_backwards;
        complain("kvmclock-backwards", cpu, reading.kvmclock_ns, before);
        newest_kvmclock_ns = reading.kvmclock_ns; // one jump, one complaint
    }
    checks->last_kvmclock_ns = reading.kvmclock_ns;
    raise_to(&newest_kvmclock_ns, reading.kvmclock_ns);

    uint64_t tsc_ns =
        (uint64_t)((unsigned __int128)(reading.tsc - entry_tsc) * us_multiplier * 1000 >> 48);
    int64_t ahead = (int64_t)(reading.kvmclock_ns - tsc_ns);
    if (checks->readings++ == 0) {
        checks->kvmclock_base_ns = ahead;
    }
    ahead -= checks->kvmclock_base_ns;
    if (ahead < checks->kvmclock_ahead_min_ns) {
        checks->kvmclock_ahead_min_ns = ahead;
    }
    if (ahead > checks->kvmclock_ahead_max_ns) {
        checks->kvmclock_ahead_max_ns = ahead;
    }
}

uint64_t clock_check(uint32_t cpu, struct clock_checks* checks) {
    // The shared values are read before the clocks, so the clocks must not be behind them.
    uint64_t before = newest_tsc;
    uint64_t newest_ns = newest_kvmclock_ns;
    if (checks->last_tsc > before) {
        before = checks->last_tsc;
    }
    struct reading reading = {0};
    if (clock_has_kvmclock()) {
        reading = read_both(cpu);
        check_kvmclock(cpu, checks, reading, newest_ns);
    } else {
        reading.tsc = tsc_read();
    }
    if (reading.tsc < before) {
        ++checks->tsc_backwards;
        complain("tsc-backwards", cpu, reading.tsc, before);
        newest_tsc = reading.tsc;
    }
    checks->last_tsc = reading.tsc;
    raise_to(&newest_tsc, reading.tsc);
    return reading.tsc;
}
