#include "memory_load.h"

#include "events.h"
#include "hash.h"
#include "options.h"

#include <sys/mman.h>

#include <stddef.h>

#define PAGE_MAGIC 0x6567617064777467ull // "gtwdpage"

enum {
    page_words = 512,
    pages_per_step = 256,
    backlog_ns = 100000000, // what was missed in a pause longer than this is not made up for
};

enum page_word { word_magic, word_index, word_sequence, word_owner, word_check };

static volatile uint64_t* working_set;
static uint32_t* sequences; // newest write of each page; 0: never written
static uint64_t pages;

static void* take(uint64_t bytes) {
    void* memory = mmap(
        NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

bool memory_load_prepare(uint64_t bytes) {
    pages = bytes / 4096;
    if (pages == 0) {
        return true;
    }
    working_set = take(pages * 4096);
    sequences = take(pages * sizeof *sequences);
    return working_set != NULL && sequences != NULL;
}

uint64_t memory_load_pages(void) {
    return pages;
}

void memory_load_start(struct memory_load* load, uint32_t cpu, uint32_t cpus) {
    load->first = pages * cpu / cpus;
    load->count = pages * (cpu + 1) / cpus - load->first;
    load->random = 0x9a9e5ull + cpu;
}

static uint64_t check_of(uint64_t index, uint64_t sequence, uint64_t owner) {
    return hash_step(hash_step(hash_step(PAGE_MAGIC, index), sequence), owner);
}

static void complain(struct memory_load* load,
                     uint32_t cpu,
                     uint64_t index,
                     const volatile uint64_t* page,
                     uint32_t expected) {
    atomic_fetch_add(&load->errors, 1);
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
    atomic_fetch_add(&load->checked, 1);
    if (page[word_magic] != PAGE_MAGIC || page[word_index] != index ||
        page[word_sequence] != expected || page[word_owner] != cpu ||
        page[word_check] != checksum || page[page_words - 1] != ~checksum) {
        complain(load, cpu, index, page, expected);
    }
}

static void visit(struct memory_load* load, uint32_t cpu, uint64_t offset) {
    uint64_t index = load->first + offset;
    volatile uint64_t* page = working_set + index * page_words;
    if (sequences[index] != 0) {
        check(load, cpu, index, page);
    }
    uint32_t sequence = sequences[index] + 1;
    sequence += sequence == 0; // 0 means never written
    uint64_t checksum = check_of(index, sequence, cpu);
    page[word_magic] = PAGE_MAGIC;
    page[word_index] = index;
    page[word_sequence] = sequence;
    page[word_owner] = cpu;
    page[word_check] = checksum;
    page[page_words - 1] = ~checksum;
    sequences[index] = sequence;
    atomic_fetch_add(&load->writes, 1);
}

static uint64_t next_offset(struct memory_load* load) {
    if (options.mem_pattern == pattern_seq) {
        load->cursor = load->cursor + 1 < load->count ? load->cursor + 1 : 0;
        return load->cursor;
    }
    uint64_t hot = load->count / 10;
    bool within_hot =
        options.mem_pattern == pattern_hot && hot != 0 && random_below(&load->random, 10) != 0;
    return random_below(&load->random, within_hot ? hot : load->count);
}

static void populate(struct memory_load* load, uint32_t cpu, uint64_t now_ns) {
    uint64_t populated = atomic_load(&load->populated);
    for (uint32_t i = 0; i < pages_per_step && populated < load->count; ++i) {
        visit(load, cpu, populated++);
    }
    atomic_store(&load->populated, populated);
    load->due_ns = now_ns;
}

void memory_load_step(struct memory_load* load, uint32_t cpu, uint32_t cpus, uint64_t now_ns) {
    if (load->count == 0) {
        return;
    }
    if (atomic_load(&load->populated) < load->count) {
        populate(load, cpu, now_ns);
        return;
    }
    uint64_t ns_per_page = options.mem_rate == 0 ? 0 : 1000000000ull * cpus / options.mem_rate;
    if (load->due_ns + backlog_ns < now_ns) {
        load->due_ns = now_ns - backlog_ns;
    }
    for (uint32_t i = 0; i < pages_per_step && load->due_ns <= now_ns; ++i) {
        visit(load, cpu, next_offset(load));
        load->due_ns += ns_per_page;
    }
}

bool memory_load_verify_step(struct memory_load* load, uint32_t cpu) {
    uint64_t verified = atomic_load(&load->verified);
    uint64_t populated = atomic_load(&load->populated);
    for (uint32_t i = 0; i < pages_per_step && verified < populated; ++i) {
        uint64_t index = load->first + verified++;
        check(load, cpu, index, working_set + index * page_words);
    }
    atomic_store(&load->verified, verified);
    return verified >= populated;
}
