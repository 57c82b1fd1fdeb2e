#include "power.h"

#include "acpi.h"
#include "clock.h"
#include "cpu.h"
#include "options.h"
#include "ram.h"

#include <stdint.h>

enum {
    sleep_enable = 1 << 13,
    sleep_type_shift = 10,
    reduced_sleep_enable = 1 << 5,
    effect_us = 100000
};

static void wait(void) {
    uint64_t start = tsc_read();
    while (tsc_read() - start < clock_us_to_tsc(effect_us)) {
        cpu_relax();
    }
}

static void write_register(struct acpi_register at, uint8_t value) {
    if (at.space == acpi_port) {
        port_write8((uint16_t)at.address, value);
    } else {
        ram_map_device(at.address, 1);
        *(volatile uint8_t*)(uintptr_t)at.address = value;
    }
}

static void sleep(uint8_t type) {
    if (acpi.sleep_control.address != 0) {
        write_register(acpi.sleep_control, (uint8_t)(type << 2 | reduced_sleep_enable));
    } else if (acpi.pm1a_control.address != 0) {
        port_write16((uint16_t)acpi.pm1a_control.address,
                     (uint16_t)(type << sleep_type_shift | sleep_enable));
    }
}

static void power_off(void) {
    if (acpi.has_s5) {
        sleep(acpi.s5_sleep_type);
        wait();
    }
    // No \_S5 found: the two types that are in use.
    sleep(5);
    wait();
    sleep(0);
    wait();
}

static void reset(void) {
    if (acpi.reset.address != 0) {
        write_register(acpi.reset, acpi.reset_value);
        wait();
    }
    port_write8(0xcf9, 0x02);
    port_write8(0xcf9, 0x06);
    wait();
    port_write8(0x64, 0xfe);
    wait();
}

void power_end(void) {
    if (options.exit == exit_acpi) {
        power_off();
    }
    if (options.exit != exit_halt) {
        reset();
    }
    halt_forever();
}
