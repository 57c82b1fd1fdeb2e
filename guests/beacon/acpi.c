#include "acpi.h"

#include "memory.h"

#include <stddef.h>

// Offsets are those of ACPI 6.4, sections 5.2.5 (RSDP), 5.2.9 (FADT), 5.2.12 (MADT).
enum {
    header_bytes = 36,
    table_bytes_max = 1 << 20,
    madt_entries = 44,
    madt_local_apic = 0,
    madt_local_x2apic = 9,
    fadt_dsdt = 40,
    fadt_pm1a_control = 64,
    fadt_flags = 112,
    fadt_reset_register = 116,
    fadt_reset_value = 128,
    fadt_x_dsdt = 140,
    fadt_sleep_control = 244,
    fadt_flag_reset = 1 << 10,
    fadt_flag_hardware_reduced = 1 << 20,
};

struct acpi_facts acpi = {.cpu_count = 1};

static uint32_t read32(const uint8_t* at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static uint64_t read64(const uint8_t* at) {
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static const uint8_t* at_address(uint64_t address) {
    return (const uint8_t*)(uintptr_t)address;
}

static uint32_t length_of(const uint8_t* table) {
    uint32_t length = read32(table + 4);
    return length < table_bytes_max ? length : 0;
}

static void add_cpu(uint32_t apic_id, uint32_t flags) {
    if ((flags & 1) == 0) {
        return;
    }
    if (acpi.cpu_count < CPU_LIMIT) {
        acpi.apic_ids[acpi.cpu_count++] = apic_id;
    }
}

static void read_madt(const uint8_t* table) {
    uint32_t length = length_of(table);
    acpi.cpu_count = 0;
    for (uint32_t at = madt_entries; at + 2 <= length && table[at + 1] >= 2; at += table[at + 1]) {
        const uint8_t* entry = table + at;
        if (entry[0] == madt_local_apic) {
            add_cpu(entry[3], read32(entry + 4));
        } else if (entry[0] == madt_local_x2apic) {
            add_cpu(read32(entry + 4), read32(entry + 8));
        }
    }
}

static struct acpi_register read_register(const uint8_t* address_structure) {
    return (struct acpi_register){
        .space = address_structure[0] == acpi_port ? acpi_port : acpi_memory,
        .address = read64(address_structure + 4),
    };
}

// Finds the package \_S5 in the DSDT by its bytes and takes its first number. Not an AML
// interpreter, but the package is a constant in every firmware that matters here.
static void read_s5(const uint8_t* dsdt) {
    uint32_t length = length_of(dsdt);
    for (uint32_t at = header_bytes; at + 12 < length; ++at) {
        if (memcmp(dsdt + at, "_S5_", 4) != 0 || dsdt[at + 4] != 0x12) {
            continue;
        }
        const uint8_t* package = dsdt + at + 5;
        package += (package[0] >> 6) + 2; // package length, element count
        acpi.has_s5 = true;
        acpi.s5_sleep_type = package[0] == 0x0a ? package[1] : package[0] == 1 ? 1 : 0;
        return;
    }
}

static void read_fadt(const uint8_t* table) {
    uint32_t length = length_of(table);
    uint32_t flags = length > fadt_flags + 4 ? read32(table + fadt_flags) : 0;
    acpi.pm1a_control =
        (struct acpi_register){acpi_port, length > 68 ? read32(table + fadt_pm1a_control) : 0};
    if ((flags & fadt_flag_reset) != 0 && length > fadt_reset_value) {
        acpi.reset = read_register(table + fadt_reset_register);
        acpi.reset_value = table[fadt_reset_value];
    }
    if ((flags & fadt_flag_hardware_reduced) != 0 && length >= fadt_sleep_control + 12) {
        acpi.sleep_control = read_register(table + fadt_sleep_control);
    }
    uint64_t dsdt = length > 44 ? read32(table + fadt_dsdt) : 0;
    if (dsdt == 0 && length >= fadt_x_dsdt + 8) {
        dsdt = read64(table + fadt_x_dsdt);
    }
    if (dsdt != 0) {
        read_s5(at_address(dsdt));
    }
}

static uint64_t find_rsdp(void) {
    for (uint64_t address = 0xe0000; address < 0x100000; address += 16) {
        if (memcmp(at_address(address), "RSD PTR ", 8) == 0) {
            return address;
        }
    }
    return 0;
}

void acpi_read(uint64_t rsdp) {
    if (rsdp == 0) {
        rsdp = find_rsdp();
    }
    if (rsdp == 0 || memcmp(at_address(rsdp), "RSD PTR ", 8) != 0) {
        return;
    }
    const uint8_t* pointer = at_address(rsdp);
    uint64_t xsdt = pointer[15] >= 2 ? read64(pointer + 24) : 0;
    const uint8_t* root = at_address(xsdt != 0 ? xsdt : read32(pointer + 16));
    uint32_t entry_bytes = xsdt != 0 ? 8 : 4;
    for (uint32_t at = header_bytes; at + entry_bytes <= length_of(root); at += entry_bytes) {
        const uint8_t* table = at_address(entry_bytes == 8 ? read64(root + at) : read32(root + at));
        if (memcmp(table, "APIC", 4) == 0) {
            read_madt(table);
        } else if (memcmp(table, "FACP", 4) == 0) {
            read_fadt(table);
        }
    }
    if (acpi.cpu_count == 0) {
        acpi.cpu_count = 1;
    }
}
