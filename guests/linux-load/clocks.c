#include "clocks.h"

#include "events.h"

#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

static uint64_t start_ns;
static _Atomic uint64_t newest_monotonic_ns, newest_boottime_ns;
static char source_name[32] = "unknown";

static uint64_t read_ns(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void read_source_name(void) {
    int fd = open("/sys/devices/system/clocksource/clocksource0/current_clocksource",
                  O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return;
    }
    ssize_t count = read(fd, source_name, sizeof source_name - 1);
    close(fd);
    source_name[count > 0 ? count : 0] = '\0';
    source_name[strcspn(source_name, "\n")] = '\0';
}

void clocks_start(void) {
    start_ns = read_ns(CLOCK_MONOTONIC);
    read_source_name();
}

const char* clocks_source(void) {
    return source_name;
}

uint64_t clocks_now_ns(void) {
    return read_ns(CLOCK_MONOTONIC);
}

uint64_t clocks_since_start_us(void) {
    return (read_ns(CLOCK_MONOTONIC) - start_ns) / 1000;
}

static void raise_to(_Atomic uint64_t* newest, uint64_t value) {
    uint64_t current = atomic_load(newest);
    while (current < value && !atomic_compare_exchange_weak(newest, &current, value)) {
    }
}

static void
compare(struct clock_watch* watch, uint32_t cpu, const char* kind, uint64_t now, uint64_t before) {
    if (now >= before) {
        return;
    }
    atomic_fetch_add(&watch->backwards, 1);
    if (error_begin(kind)) {
        event_number("cpu", cpu);
        event_number("now", now);
        event_number("before", before);
        event_end();
    }
}

uint64_t clocks_check(struct clock_watch* watch, uint32_t cpu) {
    // The shared values are read before the clocks, so the clocks must not be behind them. The TSC
    // is compared with its own thread's past only: rdtsc may be executed early.
    uint64_t before_monotonic = atomic_load(&newest_monotonic_ns);
    uint64_t before_boottime = atomic_load(&newest_boottime_ns);
    uint64_t monotonic = read_ns(CLOCK_MONOTONIC);
    uint64_t boottime = read_ns(CLOCK_BOOTTIME);
    uint64_t tsc = __rdtsc();
    compare(watch,
            cpu,
            "monotonic-backwards",
            monotonic,
            before_monotonic > watch->last_monotonic_ns ? before_monotonic
                                                        : watch->last_monotonic_ns);
    compare(watch,
            cpu,
            "boottime-backwards",
            boottime,
            before_boottime > watch->last_boottime_ns ? before_boottime : watch->last_boottime_ns);
    compare(watch, cpu, "tsc-backwards", tsc, watch->last_tsc);
    raise_to(&newest_monotonic_ns, monotonic);
    raise_to(&newest_boottime_ns, boottime);
    watch->last_monotonic_ns = monotonic;
    watch->last_boottime_ns = boottime;
    watch->last_tsc = tsc;
    atomic_fetch_add(&watch->readings, 1);
    return monotonic;
}

static struct gap* narrowest(struct clock_watch* watch) {
    struct gap* found = &watch->widest[0];
    for (uint32_t i = 1; i < gaps_kept; ++i) {
        if (watch->widest[i].us < found->us) {
            found = &watch->widest[i];
        }
    }
    return found;
}

void gap_note(struct clock_watch* watch, uint64_t expected_ns, uint64_t now_ns) {
    if (atomic_exchange(&watch->reset_requested, false)) {
        memset(watch->widest, 0, sizeof watch->widest);
        watch->floor_us = 0;
    }
    if (now_ns <= expected_ns) {
        return;
    }
    struct gap gap = {(now_ns - expected_ns) / 1000, (now_ns - start_ns) / 1000};
    if (gap.us <= watch->floor_us) {
        return;
    }
    *narrowest(watch) = gap;
    watch->floor_us = narrowest(watch)->us;
    if (gap.us > watch->widest_total.us) {
        watch->widest_total = gap;
    }
}

struct gap gap_widest(const struct clock_watch* watch) {
    struct gap widest = watch->widest[0];
    for (uint32_t i = 1; i < gaps_kept; ++i) {
        if (watch->widest[i].us > widest.us) {
            widest = watch->widest[i];
        }
    }
    return widest;
}
