#include "memload.h"

#include "clock.h"
#include "cpu.h"
#include "events.h"
#include "memory.h"
#include "options.h"
#include "ram.h"

#include <stddef.h>

#define PAGE_MAGIC 0x6567617064777467ull // "gtwdpage"

enum {
    pages_per_step = 32,
    verify_pages_per_step = 64,
    // A step ends early after this long: when every page faults in the host, 32 of them would show
    // as a gap of their own. Looked at every few pages only, since warm pages take nanoseconds.
    step_us = 20,
    pages_between_looks = 4,
    page_words = 512,
    // A paced load runs in bursts at least this far apart, so that the CPU can sleep in between.
    burst_us = 1000,
    // What was missed in a pause longer than this is not made up for.
    backlog_us = 100000,
};

enum page_word { word_magic, word_index, word_sequence, word_owner, word_check };

static uint32_t* sequences; // newest write of each page; 0: never written
static uint64_t pages;

bool memory_load_prepare(uint64_t bytes) {
    pages = bytes / 4096;
    if (pages == 0) {
        return true;
    }
    sequences = ram_allocate(pages * sizeof *sequences, 4096);
    return sequences != NULL && ram_take_working_set(pages);
}

uint64_t working_set_pages(void) {
    return pages;
}

void memory_load_start(struct memory_load* load, uint32_t cpu, uint32_t cpus) {
    load->first = pages * cpu / cpus;
    load->count = pages * (cpu + 1) / cpus - load->first;
    load->random = 0x9a9e5ull + cpu;
    if (options.mem_rate != 0) {
        load->tsc_per_page = clock_tsc_khz() * 1000 * cpus / options.mem_rate;
    }
}

static uint64_t check_of(uint64_t index, uint64_t sequence, uint64_t owner) {
    return hash_step(hash_step(hash_step(PAGE_MAGIC, index), sequence), owner);
}

static void complain(struct memory_load* load,
                     uint32_t cpu,
                     uint64_t index,
                     const uint64_t* page,
                     uint32_t expected) {
    ++load->errors;
    if (error_begin("page")) {
        event_number("cpu", cpu);
        event_number("page", index);
        event_hex("address", (uintptr_t)page);
        event_number("expected_sequence", expected);
        event_number("sequence", page[word_sequence]);
        event_number("index", page[word_index]);
        event_hex("magic", page[word_magic]);
        event_hex("check", page[word_check]);
        event_hex("tail", page[page_words - 1]);
        event_end();
    }
}

static void
check(struct memory_load* load, uint32_t cpu, uint64_t index, const volatile uint64_t* page) {
    uint32_t expected = sequences[index];
    uint64_t checksum = check_of(index, expected, cpu);
    ++load->checked;
    if (page[word_magic] != PAGE_MAGIC || page[word_index] != index ||
        page[word_sequence] != expected || page[word_owner] != cpu ||
        page[word_check] != checksum || page[page_words - 1] != ~checksum) {
        complain(load, cpu, index, (const uint64_t*)page, expected);
    }
}

static void visit(struct memory_load* load, uint32_t cpu, uint64_t offset) {
    uint64_t index = load->first + offset;
    volatile uint64_t* page = working_set_page(index);
    if (sequences[index] != 0) {
        check(load, cpu, index, page);
    }
    uint32_t sequence = sequences[index] + 1;
    if (sequence == 0) {
        sequence = 1; // 0 means never written
    }
    uint64_t checksum = check_of(index, sequence, cpu);
    page[word_magic] = PAGE_MAGIC;
    page[word_index] = index;
    page[word_sequence] = sequence;
    page[word_owner] = cpu;
    page[word_check] = checksum;
    page[page_words - 1] = ~checksum;
    sequences[index] = sequence;
    ++load->writes;
}

static uint64_t next_offset(struct memory_load* load) {
    switch ((enum pattern)options.mem_pattern) {
    case pattern_seq:
        load->cursor = load->cursor + 1 < load->count ? load->cursor + 1 : 0;
        return load->cursor;
    case pattern_hot: {
        uint64_t hot = load->count / 10;
        if (hot != 0 && random_below(&load->random, 10) != 0) {
            return random_below(&load->random, hot);
        }
        break;
    }
    case pattern_random:
        break;
    }
    return random_below(&load->random, load->count);
}

static bool step_is_over(uint32_t done, uint64_t began) {
    return done % pages_between_looks == 0 && tsc_read() - began > clock_us_to_tsc(step_us);
}

uint64_t memory_load_step(struct memory_load* load, uint32_t cpu, uint64_t now) {
    if (load->count == 0) {
        return NEVER;
    }
    if (load->populated < load->count) {
        for (uint32_t i = 1; i <= pages_per_step && load->populated < load->count; ++i) {
            visit(load, cpu, load->populated++);
            if (step_is_over(i, now)) {
                break;
            }
        }
        load->next_write_tsc = now;
        return now;
    }
    if (load->tsc_per_page == 0) {
        for (uint32_t i = 1; i <= pages_per_step; ++i) {
            visit(load, cpu, next_offset(load));
            if (step_is_over(i, now)) {
                break;
            }
        }
        return now;
    }
    uint64_t backlog = clock_us_to_tsc(backlog_us);
    if (load->next_write_tsc + backlog < now) {
        load->next_write_tsc = now - backlog;
    }
    for (uint32_t i = 1; i <= pages_per_step && load->next_write_tsc <= now; ++i) {
        visit(load, cpu, next_offset(load));
        load->next_write_tsc += load->tsc_per_page;
        if (step_is_over(i, now)) {
            break;
        }
    }
    if (load->next_write_tsc <= now) {
        return now;
    }
    uint64_t burst = now + clock_us_to_tsc(burst_us);
    return load->next_write_tsc > burst ? load->next_write_tsc : burst;
}

bool memory_load_verify_step(struct memory_load* load, uint32_t cpu, uint64_t now) {
    for (uint32_t i = 1; i <= verify_pages_per_step && load->verify_cursor < load->populated; ++i) {
        uint64_t index = load->first + load->verify_cursor++;
        check(load, cpu, index, working_set_page(index));
        if (step_is_over(i, now)) {
            break;
        }
    }
    return load->verify_cursor >= load->populated;
}
