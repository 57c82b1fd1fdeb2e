// Bytes out and in: the serial port COM1 and port 0 of a virtio console. Output is buffered and
// drained a few bytes at a time by the first CPU, because every byte on a serial port is an exit
// and a whole report at once would look like a gap in the guest's time.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// Sets up the serial port and ends the line that the boot byte began.
void output_start(void);

// Where lines go: output_serial | output_virtio. Serial until called.
void output_choose(uint64_t ports);

void output_write(const char* bytes, uint32_t count);

// Sends a little of what waits. True while more waits.
bool output_step(void);

// Sends everything that waits.
void output_flush(void);

// A panic may find the drain in the hands of the CPU that panicked.
void output_break_lock(void);

// Next byte from a port, or -1.
int output_read(void);
