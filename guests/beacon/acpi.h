// The few facts beacon takes from ACPI: the CPUs (MADT) and how to end the machine (FADT, \_S5).
#pragma once

#include "layout.h"

#include <stdbool.h>
#include <stdint.h>

enum acpi_space { acpi_memory = 0, acpi_port = 1 };

struct acpi_register {
    enum acpi_space space;
    uint64_t address; // 0: the machine has none
};

struct acpi_facts {
    uint32_t cpu_count;
    uint32_t apic_ids[CPU_LIMIT];
    struct acpi_register pm1a_control;
    struct acpi_register sleep_control; // hardware-reduced ACPI
    struct acpi_register reset;
    uint8_t reset_value;
    bool has_s5;
    uint8_t s5_sleep_type;
};

extern struct acpi_facts acpi;

// Reads the tables behind `rsdp` (searched for below 1 MiB when 0). Without tables one CPU is
// assumed.
void acpi_read(uint64_t rsdp);
