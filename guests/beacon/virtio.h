// virtio 1.x over PCI, split rings, polled or driven by MSI-X. Used by one CPU at a time: the
// first.
//
// With an interrupt vector a queue is looked at only after its interrupt count has moved, so that a
// lost interrupt shows: after 100 ms of visible work without one (a pause of the machine not
// counted) it is reported and the queue is served all the same.
#pragma once

#include "pci.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    virtio_queue_entries_max = 256,
    virtio_look_us = 40000, // how often to look while requests are in flight, interrupt or not
    virtio_type_net = 1,
    virtio_type_block = 2,
    virtio_type_console = 3,
};

#define VIRTIO_F_EVENT_IDX (1ull << 29)
#define VIRTIO_F_VERSION_1 (1ull << 32)

struct virtio_descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

enum { virtio_descriptor_next = 1, virtio_descriptor_write = 2 };

struct virtio_queue {
    uint16_t index, entries;
    struct virtio_descriptor* descriptors;
    volatile uint16_t* available; // flags, index, ring..., used_event
    volatile uint16_t* used;      // flags, index, ring of {u32 id, u32 length}..., available_event
    volatile uint16_t* notify;
    uint16_t available_index, kicked_index, used_seen;
    bool event_index;
    uint32_t vector; // 0: polled
    uint64_t interrupts_seen;
    uint64_t looked_tsc; // when work without an interrupt was last seen; 0: there is none
    uint64_t waited_tsc;
    uint64_t lost_interrupts;
    const char* name;
};

struct virtio_device {
    struct pci_function at;
    uint64_t features;
    volatile uint8_t* common;
    volatile uint8_t* device_config;
    volatile uint8_t* notify;
    uint32_t notify_multiplier;
    volatile uint32_t* msix_table;
    uint16_t msix_control; // offset of the register in configuration space, 0: no MSI-X
    bool present;
};

// Looks for the `ordinal`-th device of a type on bus 0.
bool virtio_find(struct virtio_device* device, uint32_t type, uint32_t ordinal);

// Reset and feature negotiation: VERSION_1, EVENT_IDX where offered, and `wanted` where offered.
bool virtio_begin(struct virtio_device* device, uint64_t wanted);

// Sets up a queue of up to `entries`; `name` is for messages. With use_irq and MSI-X it gets a
// vector.
bool virtio_add_queue(struct virtio_device* device,
                      struct virtio_queue* queue,
                      uint16_t index,
                      uint16_t entries,
                      bool use_irq,
                      const char* name);
void virtio_run(struct virtio_device* device);

bool virtio_needs_reset(const struct virtio_device* device);

// Makes the chain that begins at descriptor `head` available, without telling the device.
void virtio_offer(struct virtio_queue* queue, uint16_t head);

// Tells the device about what was offered, if it wants to know.
void virtio_kick(struct virtio_queue* queue);

// True when virtio_take() should be called until it returns false.
bool virtio_ready(struct virtio_queue* queue, uint64_t now);
bool virtio_take(struct virtio_queue* queue, uint16_t* head, uint32_t* length);
