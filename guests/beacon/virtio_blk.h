// virtio-blk, queue 0: up to 64 requests at once, each in its slot with a buffer of its own.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { block_slots_max = 64 };
enum block_operation { block_read = 0, block_write = 1, block_flush = 4 };

struct block_completion {
    uint32_t slot;
    uint8_t status; // 0: done
};

bool block_open(uint32_t ordinal, uint32_t slots, uint32_t buffer_bytes, bool use_irq);
uint64_t block_capacity_bytes(void);
bool block_has_flush(void);
uint8_t* block_buffer(uint32_t slot);

void block_submit(uint32_t slot, enum block_operation operation, uint64_t offset, uint32_t bytes);
void block_kick(void);

bool block_ready(uint64_t now);
bool block_take(struct block_completion* completion);

bool block_needs_reset(void);
const struct virtio_queue* block_queue(void);
