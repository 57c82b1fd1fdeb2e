#include "virtio_blk.h"

#include "memory.h"
#include "ram.h"
#include "virtio.h"

#include <stddef.h>

#define FEATURE_FLUSH (1ull << 9)

enum { descriptors_per_slot = 3, sector_bytes = 512, status_offset = 16, header_stride = 32 };

struct request_header {
    uint32_t type, reserved;
    uint64_t sector;
};

static struct virtio_device device;
static struct virtio_queue queue;
static uint8_t* headers; // per slot a request_header and, behind it, the status byte
static uint8_t* buffers;
static uint32_t bytes_per_buffer;

bool block_open(uint32_t ordinal, uint32_t slots, uint32_t buffer_bytes, bool use_irq) {
    if (!virtio_find(&device, virtio_type_block, ordinal) ||
        !virtio_begin(&device, FEATURE_FLUSH) ||
        !virtio_add_queue(&device, &queue, 0, virtio_queue_entries_max, use_irq, "disk") ||
        queue.entries < slots * descriptors_per_slot) {
        return false;
    }
    bytes_per_buffer = buffer_bytes;
    headers = ram_allocate(slots * header_stride, 64);
    buffers = ram_allocate((uint64_t)slots * buffer_bytes, 4096);
    if (headers == NULL || buffers == NULL) {
        return false;
    }
    virtio_run(&device);
    return true;
}

uint64_t block_capacity_bytes(void) {
    const volatile uint32_t* capacity = (const volatile uint32_t*)device.device_config;
    return capacity == NULL ? 0 : (capacity[0] | (uint64_t)capacity[1] << 32) * sector_bytes;
}

bool block_has_flush(void) {
    return (device.features & FEATURE_FLUSH) != 0;
}

uint8_t* block_buffer(uint32_t slot) {
    return buffers + (uint64_t)slot * bytes_per_buffer;
}

void block_submit(uint32_t slot, enum block_operation operation, uint64_t offset, uint32_t bytes) {
    uint8_t* header = headers + slot * header_stride;
    *(struct request_header*)(void*)header =
        (struct request_header){.type = operation, .sector = offset / sector_bytes};
    header[status_offset] = 0xff;
    uint16_t head = (uint16_t)(slot * descriptors_per_slot);
    uint16_t status = (uint16_t)(head + (bytes != 0 ? 2 : 1));
    queue.descriptors[head] = (struct virtio_descriptor){(uintptr_t)header,
                                                         sizeof(struct request_header),
                                                         virtio_descriptor_next,
                                                         (uint16_t)(head + 1)};
    if (bytes != 0) {
        queue.descriptors[head + 1] = (struct virtio_descriptor){
            (uintptr_t)block_buffer(slot),
            bytes,
            virtio_descriptor_next | (operation == block_read ? virtio_descriptor_write : 0),
            status};
    }
    queue.descriptors[status] = (struct virtio_descriptor){
        (uintptr_t)header + status_offset, 1, virtio_descriptor_write, 0};
    virtio_offer(&queue, head);
}

void block_kick(void) {
    virtio_kick(&queue);
}

bool block_ready(uint64_t now) {
    return virtio_ready(&queue, now);
}

bool block_take(struct block_completion* completion) {
    uint16_t head;
    uint32_t length;
    if (!virtio_take(&queue, &head, &length)) {
        return false;
    }
    completion->slot = head / descriptors_per_slot;
    completion->status = completion->slot < block_slots_max
                             ? headers[completion->slot * header_stride + status_offset]
                             : 0xff;
    return true;
}

bool block_needs_reset(void) {
    return virtio_needs_reset(&device);
}

const struct virtio_queue* block_queue(void) {
    return &queue;
}
