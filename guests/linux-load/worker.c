#define _GNU_SOURCE // CPU sets
#include "worker.h"

#include "options.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

struct worker workers[cpus_max];
uint32_t worker_count;

static _Atomic uint64_t verify_epoch;
static atomic_int verify_done_fd;
static atomic_bool load_stopped;

static bool pin_to(uint32_t cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return sched_setaffinity(0, sizeof set, &set) == 0;
}

// A turn's work; returns CLOCK_MONOTONIC after it.
static uint64_t work(struct worker* worker, uint64_t now_ns) {
    uint64_t epoch = atomic_load(&verify_epoch);
    if (atomic_load(&worker->verified_epoch) != epoch) {
        if (memory_load_verify_step(&worker->memory, worker->cpu)) {
            atomic_store(&worker->verified_epoch, epoch);
            uint64_t one = 1;
            if (write(atomic_load(&verify_done_fd), &one, sizeof one) != sizeof one) {
                abort(); // an eventfd that is read takes any small count
            }
        }
    } else if (!atomic_load(&load_stopped)) {
        memory_load_step(&worker->memory, worker->cpu, worker_count, now_ns);
    }
    uint64_t after_ns = clocks_check(&worker->clock, worker->cpu);
    gap_note(&worker->clock, now_ns, after_ns);
    return after_ns;
}

static bool is_busy(const struct worker* worker) {
    return (options.mem_rate == 0 && worker->memory.count != 0) ||
           atomic_load(&worker->memory.populated) < worker->memory.count ||
           atomic_load(&worker->verified_epoch) != atomic_load(&verify_epoch);
}

static void* serve(void* argument) {
    struct worker* worker = argument;
    pin_to(worker->cpu); // a CPU that is offline: the thread runs elsewhere
    if (options.vectors != 0) {
        registers_start(&worker->registers, worker->cpu);
    }
    uint64_t tick_ns = options.tick_us * 1000;
    uint64_t now_ns = clocks_check(&worker->clock, worker->cpu);
    for (uint64_t deadline_ns = now_ns;;) {
        atomic_fetch_add(&worker->turns, 1);
        uint64_t after_ns = work(worker, now_ns);
        uint64_t expected_ns = after_ns;
        if (is_busy(worker)) {
            registers_yield(&worker->registers, worker->cpu);
            deadline_ns = after_ns;
        } else {
            deadline_ns =
                deadline_ns + tick_ns > after_ns ? deadline_ns + tick_ns : after_ns + tick_ns;
            expected_ns = deadline_ns;
            struct timespec until = {(time_t)(deadline_ns / 1000000000u),
                                     (long)(deadline_ns % 1000000000u)};
            registers_sleep(&worker->registers, worker->cpu, &until);
        }
        now_ns = clocks_check(&worker->clock, worker->cpu);
        gap_note(&worker->clock, expected_ns, now_ns);
    }
    return NULL;
}

bool workers_start(void) {
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    if (online < 1 || (options.cpus != 0 && options.cpus > (uint64_t)online)) {
        return false;
    }
    worker_count = options.cpus != 0 ? (uint32_t)options.cpus : (uint32_t)online;
    worker_count = worker_count > cpus_max ? cpus_max : worker_count;
    for (uint32_t i = 0; i < worker_count; ++i) {
        workers[i].cpu = i;
        memory_load_start(&workers[i].memory, i, worker_count);
    }
    for (uint32_t i = 0; i < worker_count; ++i) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, serve, &workers[i]) != 0) {
            return false;
        }
    }
    return true;
}

void workers_verify(int done_fd) {
    atomic_store(&verify_done_fd, done_fd);
    for (uint32_t i = 0; i < worker_count; ++i) {
        atomic_store(&workers[i].memory.verified, 0);
    }
    atomic_fetch_add(&verify_epoch, 1);
}

bool workers_verified(void) {
    for (uint32_t i = 0; i < worker_count; ++i) {
        if (atomic_load(&workers[i].verified_epoch) != atomic_load(&verify_epoch)) {
            return false;
        }
    }
    return true;
}

void workers_stop_load(void) {
    atomic_store(&load_stopped, true);
}
