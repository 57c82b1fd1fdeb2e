// Port 0 of a virtio console: bytes out and in.
#pragma once

#include <stdbool.h>
#include <stdint.h>

bool virtio_console_open(void);

// Hands over what fits into one free buffer; returns how many bytes it took (0: all busy).
uint32_t virtio_console_send(const char* bytes, uint32_t count);

// Next byte, or -1.
int virtio_console_read(void);
