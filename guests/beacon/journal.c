#include "journal.h"

#include "clock.h"
#include "cpu.h"
#include "events.h"
#include "memload.h"
#include "memory.h"
#include "options.h"
#include "ram.h"
#include "virtio.h"
#include "virtio_blk.h"

#include <stddef.h>

#define BLOCK_MAGIC 0x6b636f6c64777467ull // "gtwdlock"

enum {
    default_span_bytes = 64 << 20,
    tries_for_idle_block = 8,
    operations_per_read = 4, // with disk_verify every fourth request reads something back
    backlog_us = 100000,
};

struct block_header { // followed by pattern words up to the length
    uint64_t magic, run, block, sequence, length, check;
};

struct block_state {
    uint64_t acknowledged; // newest acknowledged sequence, 0: unknown
    bool busy;             // a request for it is in flight
};

struct slot {
    bool busy;
    enum block_operation operation;
    uint64_t block, sequence, submitted_tsc;
    uint64_t flush_covers;
};

enum verify_phase { verify_off, verify_draining, verify_flushing, verify_reading };

struct journal_counts journal_counts;

static struct block_state* states;
static struct slot slots[block_slots_max];
static uint64_t blocks;
static uint64_t run_id;
static uint64_t next_sequence = 1;
static uint64_t cursor, operations, random_state = 0xd15c;
static uint64_t next_request_tsc, tsc_per_request;
static uint64_t writes_since_flush;
static enum verify_phase verify;
static uint64_t verify_cursor;
static bool running;

bool journal_start(const char** reason) {
    if (!block_open((uint32_t)options.disk_index,
                    (uint32_t)options.disk_qd,
                    (uint32_t)options.disk_block_bytes,
                    options.irq != 0)) {
        *reason = "disk: no such virtio-blk device, or it refuses";
        return false;
    }
    uint64_t span = options.disk_span_bytes;
    if (span == 0 || span > block_capacity_bytes()) {
        span = block_capacity_bytes();
        if (options.disk_span_bytes == 0 && span > default_span_bytes) {
            span = default_span_bytes;
        }
    }
    blocks = span / options.disk_block_bytes;
    states = blocks != 0 ? ram_allocate(blocks * sizeof *states, 4096) : NULL;
    if (states == NULL) {
        *reason = "disk: empty, or too large for the table in RAM";
        return false;
    }
    if (options.disk_rate != 0) {
        tsc_per_request = clock_tsc_khz() * 1000 / options.disk_rate;
    }
    run_id = hash_step(tsc_read(), 0) | 1;
    running = true;
    return true;
}

uint64_t journal_run_id(void) {
    return run_id;
}

uint64_t journal_blocks(void) {
    return blocks;
}

static uint64_t check_of(const uint8_t* block, uint64_t bytes) {
    const uint64_t* words = (const uint64_t*)(const void*)block;
    const uint64_t check_word = offsetof(struct block_header, check) / 8;
    uint64_t hash = BLOCK_MAGIC;
    for (uint64_t i = 0; i < bytes / 8; ++i) {
        hash = hash_step(hash, i == check_word ? 0 : words[i]);
    }
    return hash;
}

static void fill(uint8_t* block, uint64_t number, uint64_t sequence) {
    uint64_t bytes = options.disk_block_bytes;
    struct block_header* header = (struct block_header*)(void*)block;
    *header = (struct block_header){BLOCK_MAGIC, run_id, number, sequence, bytes, 0};
    uint64_t* words = (uint64_t*)(void*)block;
    uint64_t state = hash_step(hash_step(run_id, number), sequence) | 1;
    for (uint64_t i = sizeof *header / 8; i < bytes / 8; ++i) {
        words[i] = random_next(&state);
    }
    header->check = check_of(block, bytes);
}

static void complain(const char* kind,
                     uint64_t block,
                     uint64_t expected,
                     const struct block_header* found,
                     uint8_t status) {
    ++journal_counts.errors;
    if (error_begin(kind)) {
        event_number("block", block);
        event_number("expected_sequence", expected);
        event_number("status", status);
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

static void compare(const struct slot* slot, const uint8_t* data) {
    const struct block_header* header = (const struct block_header*)(const void*)data;
    uint64_t bytes = options.disk_block_bytes;
    if (header->magic != BLOCK_MAGIC || header->run != run_id || header->block != slot->block ||
        header->sequence != slot->sequence || header->length != bytes ||
        header->check != check_of(data, bytes)) {
        complain("block", slot->block, slot->sequence, header, 0);
        return;
    }
    ++journal_counts.verified;
}

static void finish(struct slot* slot, const uint8_t* data, uint8_t status, uint64_t now) {
    uint64_t latency_us = clock_tsc_to_us(now - slot->submitted_tsc);
    if (latency_us > journal_counts.latency_max_us) {
        journal_counts.latency_max_us = latency_us;
    }
    --journal_counts.in_flight;
    slot->busy = false;
    if (slot->operation == block_flush) {
        ++journal_counts.flushes;
        if (status != 0) {
            complain("flush", 0, 0, NULL, status);
        } else if (slot->flush_covers > journal_counts.flushed) {
            journal_counts.flushed = slot->flush_covers;
        }
        return;
    }
    struct block_state* state = &states[slot->block];
    state->busy = false;
    if (slot->operation == block_read) {
        ++journal_counts.reads;
        if (status != 0) {
            complain("disk-read", slot->block, slot->sequence, NULL, status);
        } else {
            compare(slot, data);
        }
        return;
    }
    ++journal_counts.writes;
    if (status != 0) {
        complain("disk-write", slot->block, slot->sequence, NULL, status);
        journal_counts.blocks_written -= state->acknowledged != 0;
        state->acknowledged = 0; // old or new or half: nobody knows
        return;
    }
    journal_counts.blocks_written += state->acknowledged == 0;
    state->acknowledged = slot->sequence;
    if (slot->sequence > journal_counts.newest_acknowledged) {
        journal_counts.newest_acknowledged = slot->sequence;
    }
}

static void take_completions(uint64_t now) {
    if (!block_ready(now)) {
        return;
    }
    struct block_completion completion;
    while (block_take(&completion)) {
        if (completion.slot >= options.disk_qd || !slots[completion.slot].busy) {
            complain("completion-of-nothing", completion.slot, 0, NULL, completion.status);
            continue;
        }
        finish(&slots[completion.slot], block_buffer(completion.slot), completion.status, now);
    }
}

static struct slot* free_slot(uint32_t* number) {
    for (uint32_t i = 0; i < options.disk_qd; ++i) {
        if (!slots[i].busy) {
            *number = i;
            return &slots[i];
        }
    }
    return NULL;
}

static void submit(struct slot* slot, uint32_t number, uint64_t now) {
    slot->busy = true;
    slot->submitted_tsc = now;
    ++journal_counts.in_flight;
    uint64_t bytes = options.disk_block_bytes;
    bool flush = slot->operation == block_flush;
    if (!flush) {
        states[slot->block].busy = true;
    }
    block_submit(
        number, slot->operation, flush ? 0 : slot->block * bytes, flush ? 0 : (uint32_t)bytes);
}

// A flush says something about the writes acknowledged before it was submitted: all of them below
// the oldest one still in flight.
static void submit_flush(struct slot* slot, uint32_t number, uint64_t now) {
    uint64_t covers = next_sequence - 1;
    for (uint32_t i = 0; i < options.disk_qd; ++i) {
        if (slots[i].busy && slots[i].operation == block_write && slots[i].sequence <= covers) {
            covers = slots[i].sequence - 1;
        }
    }
    *slot = (struct slot){.operation = block_flush, .flush_covers = covers};
    submit(slot, number, now);
    writes_since_flush = 0;
}

static bool submit_read(struct slot* slot, uint32_t number, uint64_t now) {
    for (uint32_t i = 0; i < tries_for_idle_block; ++i) {
        uint64_t block = random_below(&random_state, blocks);
        if (!states[block].busy && states[block].acknowledged != 0) {
            *slot = (struct slot){
                .operation = block_read, .block = block, .sequence = states[block].acknowledged};
            submit(slot, number, now);
            return true;
        }
    }
    return false;
}

static bool submit_write(struct slot* slot, uint32_t number, uint64_t now) {
    for (uint32_t i = 0; i < tries_for_idle_block; ++i) {
        uint64_t block = cursor;
        if (options.disk_pattern == pattern_random) {
            block = random_below(&random_state, blocks);
        } else {
            cursor = cursor + 1 < blocks ? cursor + 1 : 0;
        }
        if (!states[block].busy) {
            *slot = (struct slot){
                .operation = block_write, .block = block, .sequence = next_sequence++};
            fill(block_buffer(number), block, slot->sequence);
            submit(slot, number, now);
            ++writes_since_flush;
            return true;
        }
    }
    return false;
}

static bool submit_load(struct slot* slot, uint32_t number, uint64_t now) {
    if (options.disk_flush != 0 && block_has_flush() && writes_since_flush >= options.disk_flush) {
        submit_flush(slot, number, now);
        return true;
    }
    bool read = options.disk_verify != 0 && ++operations % operations_per_read == 0;
    if (read && submit_read(slot, number, now)) {
        return true;
    }
    return submit_write(slot, number, now);
}

static bool submit_verification(struct slot* slot, uint32_t number, uint64_t now) {
    if (verify == verify_draining && journal_counts.in_flight == 0) {
        verify = verify_flushing;
        if (block_has_flush()) {
            submit_flush(slot, number, now);
            return true;
        }
    }
    if (verify == verify_flushing && journal_counts.in_flight == 0) {
        verify = verify_reading;
    }
    if (verify != verify_reading) {
        return false;
    }
    while (verify_cursor < blocks && states[verify_cursor].acknowledged == 0) {
        ++verify_cursor;
    }
    if (verify_cursor == blocks) {
        return false;
    }
    *slot = (struct slot){.operation = block_read,
                          .block = verify_cursor,
                          .sequence = states[verify_cursor].acknowledged};
    ++verify_cursor;
    submit(slot, number, now);
    return true;
}

uint64_t journal_step(uint64_t now) {
    if (!running) {
        return NEVER;
    }
    take_completions(now);
    uint64_t backlog = clock_us_to_tsc(backlog_us);
    if (next_request_tsc + backlog < now) {
        next_request_tsc = now - backlog;
    }
    uint64_t due = NEVER;
    uint32_t number;
    struct slot* slot;
    while ((slot = free_slot(&number)) != NULL) {
        if (verify != verify_off) {
            if (!submit_verification(slot, number, now)) {
                break;
            }
            continue;
        }
        if (tsc_per_request != 0 && next_request_tsc > now) {
            due = next_request_tsc;
            break;
        }
        if (!submit_load(slot, number, now)) {
            due = now;
            break;
        }
        next_request_tsc += tsc_per_request;
    }
    block_kick();
    // Without an interrupt the ring has to be looked at again at once; with one, in time to notice
    // that it is missing.
    if (journal_counts.in_flight != 0) {
        uint64_t look = block_queue()->vector == 0 ? now : now + clock_us_to_tsc(virtio_look_us);
        due = look < due ? look : due;
    }
    return due;
}

void journal_verify_begin(void) {
    verify = verify_draining;
    verify_cursor = 0;
}

bool journal_verify_done(void) {
    return !running ||
           (verify == verify_reading && verify_cursor == blocks && journal_counts.in_flight == 0);
}

void journal_verify_end(void) {
    verify = verify_off;
}
