#include "block_format.h"

#include "hash.h"

#include <stddef.h>

#define BLOCK_MAGIC 0x6b636f6c64777467ull // "gtwdlock"

static uint64_t check_of(const void* block, uint64_t bytes) {
    const uint64_t* words = block;
    const uint64_t check_word = offsetof(struct block_header, check) / 8;
    uint64_t hash = BLOCK_MAGIC;
    for (uint64_t i = 0; i < bytes / 8; ++i) {
        hash = hash_step(hash, i == check_word ? 0 : words[i]);
    }
    return hash;
}

void block_fill(void* block, uint64_t bytes, uint64_t run, uint64_t number, uint64_t sequence) {
    struct block_header* header = block;
    *header = (struct block_header){BLOCK_MAGIC, run, number, sequence, bytes, 0};
    uint64_t* words = block;
    uint64_t state = hash_step(hash_step(run, number), sequence) | 1;
    for (uint64_t i = sizeof *header / 8; i < bytes / 8; ++i) {
        words[i] = random_next(&state);
    }
    header->check = check_of(block, bytes);
}

bool block_is(const void* block, uint64_t bytes, uint64_t run, uint64_t number, uint64_t sequence) {
    const struct block_header* header = block;
    return header->magic == BLOCK_MAGIC && header->run == run && header->block == number &&
           header->sequence == sequence && header->length == bytes &&
           header->check == check_of(block, bytes);
}
