#include "output.h"

#include "cpu.h"
#include "memory.h"
#include "options.h"
#include "virtio_console.h"

#include <stddef.h>

enum {
    ring_bytes = 1 << 16,
    serial_burst_bytes = 8,
    status_data_ready = 0x01, // of the line status register
    status_empty = 0x20,
    status_idle = 0x40,
};

struct byte_ring {
    char bytes[ring_bytes];
    volatile uint32_t written; // free-running, by writers under the event lock
    volatile uint32_t sent;    // free-running, by the holder of `draining`
};

static struct byte_ring serial_ring;
static struct byte_ring virtio_ring;
static uint64_t enabled = output_serial;
static volatile bool draining;

void output_choose(uint64_t ports) {
    enabled = ports;
}

static void drain_serial(void) {
    uint32_t waiting = serial_ring.written - serial_ring.sent;
    uint32_t start = serial_ring.sent % ring_bytes;
    uint32_t burst = waiting < serial_burst_bytes ? waiting : serial_burst_bytes;
    burst = burst < ring_bytes - start ? burst : ring_bytes - start;
    if (burst > 0 && (serial_exchange(serial_ring.bytes + start, burst) & status_empty) != 0) {
        serial_ring.sent += burst;
    }
}

static void drain_virtio(void) {
    uint32_t waiting = virtio_ring.written - virtio_ring.sent;
    uint32_t start = virtio_ring.sent % ring_bytes;
    uint32_t chunk = waiting < ring_bytes - start ? waiting : ring_bytes - start;
    if (chunk > 0) {
        virtio_ring.sent += virtio_console_send(virtio_ring.bytes + start, chunk);
    }
}

static bool waiting(void) {
    return serial_ring.sent != serial_ring.written || virtio_ring.sent != virtio_ring.written;
}

bool output_step(void) {
    if (waiting() && !__atomic_exchange_n(&draining, true, __ATOMIC_ACQUIRE)) {
        drain_serial();
        drain_virtio();
        __atomic_store_n(&draining, false, __ATOMIC_RELEASE);
    }
    return waiting();
}

void output_flush(void) {
    while (output_step()) {
        cpu_relax();
    }
    while ((serial_exchange(NULL, 0) & status_idle) == 0) {
        cpu_relax();
    }
}

static void append(struct byte_ring* ring, const char* bytes, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) {
        while (ring->written - ring->sent == ring_bytes) {
            output_step();
        }
        ring->bytes[ring->written % ring_bytes] = bytes[i];
        compiler_barrier();
        ++ring->written;
    }
}

void output_start(void) {
    port_write8(COM1 + 3, 0x03); // 8N1, divisor latch off
    port_write8(COM1 + 1, 0x00); // polled
    port_write8(COM1 + 2, 0x07); // FIFOs on and empty
    port_write8(COM1 + 4, 0x03); // DTR, RTS
    append(&serial_ring, "\n", 1);
}

void output_write(const char* bytes, uint32_t count) {
    if ((enabled & output_serial) != 0) {
        append(&serial_ring, bytes, count);
    }
    if ((enabled & output_virtio) != 0) {
        append(&virtio_ring, bytes, count);
    }
}

void output_break_lock(void) {
    draining = false;
}

int output_read(void) {
    if ((serial_exchange(NULL, 0) & status_data_ready) != 0) {
        return port_read8(COM1);
    }
    return (enabled & output_virtio) != 0 ? virtio_console_read() : -1;
}
