#include "virtio_console.h"

#include "cpu.h"
#include "memory.h"
#include "ram.h"
#include "virtio.h"

#include <stddef.h>

enum { buffers = 16, buffer_bytes = 1024 };

static struct virtio_device device;
static struct virtio_queue receive, transmit;
static uint8_t *receive_buffers, *transmit_buffers;
static bool transmit_busy[buffers];
static const uint8_t* unread;
static uint32_t unread_bytes;
static uint16_t unread_buffer;

static void offer_receive(uint16_t buffer) {
    receive.descriptors[buffer] = (struct virtio_descriptor){
        .address = (uintptr_t)receive_buffers + buffer * buffer_bytes,
        .length = buffer_bytes,
        .flags = virtio_descriptor_write,
    };
    virtio_offer(&receive, buffer);
    virtio_kick(&receive);
}

bool virtio_console_open(void) {
    // Polled: console bytes are rare, and input is looked for every few milliseconds anyway.
    if (!virtio_find(&device, virtio_type_console, 0) || !virtio_begin(&device, 0) ||
        !virtio_add_queue(&device, &receive, 0, buffers, false, "console-rx") ||
        !virtio_add_queue(&device, &transmit, 1, buffers, false, "console-tx")) {
        return false;
    }
    receive_buffers = ram_allocate(buffers * buffer_bytes, 64);
    transmit_buffers = ram_allocate(buffers * buffer_bytes, 64);
    if (receive_buffers == NULL || transmit_buffers == NULL) {
        return false;
    }
    virtio_run(&device);
    for (uint16_t i = 0; i < receive.entries; ++i) {
        offer_receive(i);
    }
    return true;
}

uint32_t virtio_console_send(const char* bytes, uint32_t count) {
    uint16_t head;
    uint32_t length;
    if (virtio_ready(&transmit, 0)) {
        while (virtio_take(&transmit, &head, &length)) {
            transmit_busy[head % buffers] = false;
        }
    }
    for (uint16_t i = 0; i < transmit.entries; ++i) {
        if (transmit_busy[i]) {
            continue;
        }
        uint32_t part = count < buffer_bytes ? count : buffer_bytes;
        memcpy(transmit_buffers + i * buffer_bytes, bytes, part);
        transmit.descriptors[i] = (struct virtio_descriptor){
            .address = (uintptr_t)transmit_buffers + i * buffer_bytes, .length = part};
        transmit_busy[i] = true;
        virtio_offer(&transmit, i);
        virtio_kick(&transmit);
        return part;
    }
    return 0;
}

int virtio_console_read(void) {
    if (unread_bytes == 0) {
        uint16_t head;
        uint32_t length;
        if (!device.present || !virtio_ready(&receive, 0) ||
            !virtio_take(&receive, &head, &length)) {
            return -1;
        }
        unread_buffer = head % buffers;
        unread = receive_buffers + unread_buffer * buffer_bytes;
        unread_bytes = length < buffer_bytes ? length : buffer_bytes;
        if (unread_bytes == 0) {
            offer_receive(unread_buffer);
            return -1;
        }
    }
    int byte = *unread++;
    if (--unread_bytes == 0) {
        offer_receive(unread_buffer);
    }
    return byte;
}
