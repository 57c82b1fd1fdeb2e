// virtio-net, one queue pair, no offloads: whole Ethernet frames in and out.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { frame_bytes_max = 1518 };

bool net_open(bool use_irq);
const uint8_t* net_mac(void);

// Copies the frame out; false when every transmit buffer is busy.
bool net_send(const uint8_t* frame, uint32_t bytes);

// Calls `frame_received` for each frame that has come in.
void net_receive(uint64_t now, void (*frame_received)(const uint8_t* frame, uint32_t bytes));

bool net_needs_reset(void);
const struct virtio_queue* net_receive_queue(void);
