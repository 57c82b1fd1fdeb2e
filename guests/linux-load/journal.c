#define _GNU_SOURCE // O_DIRECT
#include "journal.h"

#include "block_format.h"
#include "clocks.h"
#include "events.h"
#include "hash.h"
#include "options.h"

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    tries_for_idle_block = 8,
    operations_per_read = 4, // with disk_verify every fourth request reads something back
    sequential_run = 32,     // blocks between two jumps of the mixed pattern
    backlog_ns = 100000000,
    stack_bytes = 65536,
};

enum operation { operation_none, operation_write, operation_read, operation_flush };
enum verify_phase { verify_off, verify_draining, verify_flushing, verify_reading, verify_done };

struct block_state {
    uint64_t acknowledged; // newest acknowledged sequence, 0: unknown
    bool busy;             // a request for it is in flight
};

struct request {
    enum operation operation;
    uint64_t block, sequence;
    uint64_t covers; // of a flush: writes up to this sequence are durable after it
    uint64_t submitted_ns;
};

// `lock` guards everything below it but the constants set by journal_start.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed; // made by journal_start
static struct journal_counts counts;
static struct block_state* states;
static struct request slots[disk_threads_max];
static uint64_t next_sequence = 1;
static uint64_t cursor, operations, random_state = 0xd15c;
static uint64_t next_request_ns, writes_since_flush;
static enum verify_phase verify;
static uint64_t verify_cursor;
static int verify_done_fd = -1;

static int disk = -1;
static uint64_t blocks, run_id, disk_bytes;

bool journal_has_disk(void) {
    return disk >= 0;
}

uint64_t journal_run_id(void) {
    return run_id;
}

uint64_t journal_blocks(void) {
    return blocks;
}

uint64_t journal_disk_bytes(void) {
    return disk_bytes;
}

struct journal_counts journal_counts(void) {
    pthread_mutex_lock(&lock);
    struct journal_counts copy = counts;
    pthread_mutex_unlock(&lock);
    return copy;
}

static void complain(const char* kind,
                     const struct request* request,
                     const struct block_header* found,
                     int error) {
    if (error_begin(kind)) {
        event_number("block", request->block);
        event_number("expected_sequence", request->sequence);
        event_number("errno", (uint64_t)error);
        if (found != NULL) {
            event_number("sequence", found->sequence);
            event_number("number", found->block);
            event_number("length", found->length);
            event_hex("magic", found->magic);
            event_hex("run", found->run);
            event_hex("check", found->check);
        }
        event_end();
    }
}

// A flush says something about the writes acknowledged before it was submitted: all of them below
// the oldest one still in flight.
static void choose_flush(struct request* request) {
    request->operation = operation_flush;
    request->covers = next_sequence - 1;
    for (uint32_t i = 0; i < options.disk_qd; ++i) {
        if (slots[i].operation == operation_write && slots[i].sequence <= request->covers) {
            request->covers = slots[i].sequence - 1;
        }
    }
    writes_since_flush = 0;
}

static bool choose_read(struct request* request) {
    for (uint32_t i = 0; i < tries_for_idle_block; ++i) {
        uint64_t block = random_below(&random_state, blocks);
        if (!states[block].busy && states[block].acknowledged != 0) {
            request->operation = operation_read;
            request->block = block;
            request->sequence = states[block].acknowledged;
            return true;
        }
    }
    return false;
}

static uint64_t next_block(void) {
    if (options.disk_pattern == pattern_random) {
        return random_below(&random_state, blocks);
    }
    if (options.disk_pattern == pattern_mixed && operations % sequential_run == 0) {
        cursor = random_below(&random_state, blocks);
    }
    uint64_t block = cursor;
    cursor = cursor + 1 < blocks ? cursor + 1 : 0;
    return block;
}

static bool choose_write(struct request* request) {
    for (uint32_t i = 0; i < tries_for_idle_block; ++i) {
        uint64_t block = next_block();
        if (!states[block].busy) {
            request->operation = operation_write;
            request->block = block;
            request->sequence = next_sequence++;
            ++writes_since_flush;
            return true;
        }
    }
    return false;
}

static void choose_load(struct request* request) {
    ++operations;
    if (options.disk_flush != 0 && writes_since_flush >= options.disk_flush) {
        choose_flush(request);
        return;
    }
    bool read = options.disk_verify != 0 && operations % operations_per_read == 0;
    if (!read || !choose_read(request)) {
        choose_write(request);
    }
}

static void end_verification(void) {
    verify = verify_done;
    uint64_t one = 1;
    if (write(verify_done_fd, &one, sizeof one) != sizeof one) {
        abort(); // an eventfd that is read takes any small count
    }
}

static void choose_verification(struct request* request) {
    if (verify == verify_draining && counts.in_flight == 0) {
        verify = verify_flushing;
        choose_flush(request);
        return;
    }
    if (verify == verify_flushing && counts.in_flight == 0) {
        verify = verify_reading;
    }
    if (verify != verify_reading) {
        return;
    }
    while (verify_cursor < blocks && states[verify_cursor].acknowledged == 0) {
        ++verify_cursor;
    }
    if (verify_cursor < blocks) {
        request->operation = operation_read;
        request->block = verify_cursor;
        request->sequence = states[verify_cursor++].acknowledged;
    } else if (counts.in_flight == 0) {
        end_verification();
    }
}

// Waits, with the lock held, until the rate allows a request or something else has changed.
static bool rate_allows(void) {
    uint64_t now = clocks_now_ns();
    if (next_request_ns + backlog_ns < now) {
        next_request_ns = now - backlog_ns;
    }
    if (options.disk_rate == 0 || next_request_ns <= now) {
        next_request_ns += options.disk_rate == 0 ? 0 : 1000000000u / options.disk_rate;
        return true;
    }
    struct timespec until = {(time_t)(next_request_ns / 1000000000u),
                             (long)(next_request_ns % 1000000000u)};
    pthread_cond_timedwait(&changed, &lock, &until);
    return false;
}

static void choose(struct request* request) {
    while (request->operation == operation_none) {
        if (verify == verify_off) {
            if (rate_allows()) {
                choose_load(request);
            }
            continue;
        }
        choose_verification(request);
        if (request->operation == operation_none) {
            pthread_cond_wait(&changed, &lock);
        }
    }
}

static void note_write(const struct request* request, int error) {
    struct block_state* state = &states[request->block];
    ++counts.writes;
    if (error != 0) {
        counts.blocks_written -= state->acknowledged != 0;
        state->acknowledged = 0; // old or new or half: nobody knows
        return;
    }
    counts.blocks_written += state->acknowledged == 0;
    state->acknowledged = request->sequence;
    if (request->sequence > counts.newest_acknowledged) {
        counts.newest_acknowledged = request->sequence;
    }
}

static void note(const struct request* request, int error, bool as_expected) {
    uint64_t latency_us = (clocks_now_ns() - request->submitted_ns) / 1000;
    counts.latency_max_us = latency_us > counts.latency_max_us ? latency_us : counts.latency_max_us;
    counts.errors += error != 0 || !as_expected;
    --counts.in_flight;
    if (request->operation == operation_flush) {
        ++counts.flushes;
        if (error == 0 && request->covers > counts.flushed) {
            counts.flushed = request->covers;
        }
        return;
    }
    states[request->block].busy = false;
    if (request->operation == operation_write) {
        note_write(request, error);
    } else {
        ++counts.reads;
        counts.verified += error == 0 && as_expected;
    }
}

// Does one request without the lock. Returns errno, 0 if it was done.
static int perform(const struct request* request, void* buffer) {
    uint64_t bytes = options.disk_block_bytes;
    off_t offset = (off_t)(request->block * bytes);
    ssize_t done;
    switch (request->operation) {
    case operation_flush:
        return fdatasync(disk) == 0 ? 0 : errno;
    case operation_write:
        block_fill(buffer, bytes, run_id, request->block, request->sequence);
        done = pwrite(disk, buffer, bytes, offset);
        break;
    default:
        memset(buffer, 0, sizeof(struct block_header));
        done = pread(disk, buffer, bytes, offset);
        break;
    }
    return done == (ssize_t)bytes ? 0 : done < 0 ? errno : EIO;
}

static void* serve(void* argument) {
    struct request* slot = argument;
    void* buffer = aligned_alloc(4096, block_bytes_max);
    if (buffer == NULL) {
        abort();
    }
    static const char* const failures[] = {"", "disk-write", "disk-read", "flush"};
    for (;;) {
        pthread_mutex_lock(&lock);
        *slot = (struct request){.operation = operation_none};
        choose(slot);
        ++counts.in_flight;
        if (slot->operation != operation_flush) {
            states[slot->block].busy = true;
        }
        slot->submitted_ns = clocks_now_ns();
        pthread_mutex_unlock(&lock);

        int error = perform(slot, buffer);
        bool as_expected = true;
        if (error != 0) {
            complain(failures[slot->operation], slot, NULL, error);
        } else if (slot->operation == operation_read) {
            as_expected =
                block_is(buffer, options.disk_block_bytes, run_id, slot->block, slot->sequence);
            if (!as_expected) {
                complain("block", slot, buffer, 0);
            }
        }

        pthread_mutex_lock(&lock);
        note(slot, error, as_expected);
        slot->operation = operation_none;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static bool open_disk(void) {
    disk = open(options.disk, O_RDWR | O_DIRECT | O_CLOEXEC);
    struct stat info;
    if (disk < 0 || fstat(disk, &info) != 0) {
        return false;
    }
    disk_bytes = (uint64_t)info.st_size;
    return !S_ISBLK(info.st_mode) || ioctl(disk, BLKGETSIZE64, &disk_bytes) == 0;
}

static bool start_threads(void) {
    // The rate is kept by CLOCK_MONOTONIC, which is not the default of a condition variable.
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&changed, &attributes);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, stack_bytes);
    for (uint32_t i = 0; i < options.disk_qd; ++i) {
        pthread_t thread;
        if (pthread_create(&thread, &small, serve, &slots[i]) != 0) {
            return false;
        }
    }
    return true;
}

bool journal_start(const char** reason) {
    if (options.disk[0] == '\0') {
        return true;
    }
    *reason = "disk: cannot be opened for reading and writing with O_DIRECT";
    if (!open_disk()) {
        return false;
    }
    uint64_t span = options.disk_span_bytes;
    blocks = (span == 0 || span > disk_bytes ? disk_bytes : span) / options.disk_block_bytes;
    states = calloc(blocks, sizeof *states);
    *reason = "disk: empty, or too large for the table in memory";
    if (blocks == 0 || states == NULL) {
        return false;
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    run_id = hash_step((uint64_t)now.tv_sec, (uint64_t)now.tv_nsec) | 1;
    *reason = "disk: too many threads";
    return start_threads();
}

void journal_verify_begin(int done_fd) {
    pthread_mutex_lock(&lock);
    verify = verify_draining;
    verify_cursor = 0;
    verify_done_fd = done_fd;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

bool journal_verify_done(void) {
    pthread_mutex_lock(&lock);
    bool done = disk < 0 || verify == verify_done;
    pthread_mutex_unlock(&lock);
    return done;
}

void journal_verify_end(void) {
    pthread_mutex_lock(&lock);
    verify = verify_off;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}
