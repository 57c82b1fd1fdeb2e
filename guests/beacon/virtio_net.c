#include "virtio_net.h"

#include "memory.h"
#include "ram.h"
#include "virtio.h"

#include <stddef.h>

#define FEATURE_MAC (1ull << 5)

enum { buffers = 64, buffer_bytes = 2048, header_bytes = 12 };

static struct virtio_device device;
static struct virtio_queue receive, transmit;
static uint8_t *receive_buffers, *transmit_buffers;
static bool transmit_busy[buffers];
static uint8_t mac[6] = {0x02, 'b', 'e', 'a', 'c', 'n'}; // where the device has none of its own

static void offer_receive(uint16_t buffer) {
    receive.descriptors[buffer] = (struct virtio_descriptor){
        .address = (uintptr_t)receive_buffers + buffer * buffer_bytes,
        .length = buffer_bytes,
        .flags = virtio_descriptor_write,
    };
    virtio_offer(&receive, buffer);
}

bool net_open(bool use_irq) {
    if (!virtio_find(&device, virtio_type_net, 0) || !virtio_begin(&device, FEATURE_MAC) ||
        !virtio_add_queue(&device, &receive, 0, buffers, use_irq, "net-rx") ||
        !virtio_add_queue(&device, &transmit, 1, buffers, false, "net-tx")) {
        return false;
    }
    receive_buffers = ram_allocate(buffers * buffer_bytes, 64);
    transmit_buffers = ram_allocate(buffers * buffer_bytes, 64);
    if (receive_buffers == NULL || transmit_buffers == NULL) {
        return false;
    }
    if ((device.features & FEATURE_MAC) != 0 && device.device_config != NULL) {
        for (uint32_t i = 0; i < sizeof mac; ++i) {
            mac[i] = device.device_config[i];
        }
    }
    virtio_run(&device);
    for (uint16_t i = 0; i < receive.entries; ++i) {
        offer_receive(i);
    }
    virtio_kick(&receive);
    return true;
}

const uint8_t* net_mac(void) {
    return mac;
}

bool net_send(const uint8_t* frame, uint32_t bytes) {
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
        uint8_t* buffer = transmit_buffers + i * buffer_bytes;
        memset(buffer, 0, header_bytes);
        memcpy(buffer + header_bytes, frame, bytes);
        transmit.descriptors[i] = (struct virtio_descriptor){.address = (uintptr_t)buffer,
                                                             .length = header_bytes + bytes};
        transmit_busy[i] = true;
        virtio_offer(&transmit, i);
        virtio_kick(&transmit);
        return true;
    }
    return false;
}

void net_receive(uint64_t now, void (*frame_received)(const uint8_t* frame, uint32_t bytes)) {
    if (!virtio_ready(&receive, now)) {
        return;
    }
    uint16_t head;
    uint32_t length;
    while (virtio_take(&receive, &head, &length)) {
        uint16_t buffer = head % buffers;
        if (length > header_bytes && length <= buffer_bytes) {
            frame_received(receive_buffers + buffer * buffer_bytes + header_bytes,
                           length - header_bytes);
        }
        offer_receive(buffer);
    }
    virtio_kick(&receive);
}

bool net_needs_reset(void) {
    return virtio_needs_reset(&device);
}

const struct virtio_queue* net_receive_queue(void) {
    return &receive;
}
