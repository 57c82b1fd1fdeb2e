// What a block of the journal looks like. Formats: guests/beacon/README.md.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct block_header { // followed by pattern words up to the length
    uint64_t magic, run, block, sequence, length, check;
};

void block_fill(void* block, uint64_t bytes, uint64_t run, uint64_t number, uint64_t sequence);
bool block_is(const void* block, uint64_t bytes, uint64_t run, uint64_t number, uint64_t sequence);
