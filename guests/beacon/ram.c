#include "ram.h"

#include "cpu.h"
#include "memory.h"

#include <stddef.h>

enum {
    memory_map_entries_max = 64,
    memory_map_ram = 1,
    page_bytes = 4096,
    page_present_user = 0x7,
    page_large_ram = 0xe7,
    page_large_device = 0xff,
};

struct start_info { // hvm_start_info of the PVH boot protocol, version 1
    uint32_t magic, version, flags, module_count;
    uint64_t modules, command_line, rsdp, memory_map;
    uint32_t memory_map_entries, reserved;
};

struct memory_map_entry {
    uint64_t address, bytes;
    uint32_t type, reserved;
};

struct range {
    uint64_t start, end;
};

extern uint32_t start_info_address;
extern char image_end[];
extern uint64_t pml4[512];
extern uint64_t pdpt[512];

char command_line[4096];
uint64_t start_info_rsdp;

static struct range ranges[memory_map_entries_max]; // usable RAM from 1 MiB, what is not yet taken
static uint32_t range_count;
static uint64_t total_bytes;

static struct range working_set[memory_map_entries_max];
static uint64_t working_set_first[memory_map_entries_max]; // index of the first page of each part
static uint32_t working_set_parts;

static uint64_t round_up(uint64_t value, uint64_t alignment) {
    return (value + alignment - 1) & ~(alignment - 1);
}

static uint64_t* table_below(uint64_t* entry) {
    if (*entry == 0) {
        uint64_t* table = ram_allocate(page_bytes, page_bytes);
        if (table == NULL) {
            return NULL;
        }
        *entry = (uintptr_t)table | page_present_user;
    }
    return (uint64_t*)(uintptr_t)(*entry & 0xffffffffff000ull);
}

static void map(uint64_t start, uint64_t end, uint64_t large_page_flags) {
    const uint64_t gib = 1ull << 30;
    const uint64_t large = 2ull << 20;
    bool has_gib_pages =
        cpuid(0x80000000, 0).eax >= 0x80000001 && cpuid(0x80000001, 0).edx >> 26 & 1;
    uint64_t address = start & ~(large - 1);
    while (address < end) {
        uint64_t* level3 = table_below(&pml4[address >> 39 & 511]);
        if (level3 == NULL) {
            return;
        }
        uint64_t* entry = &level3[address >> 30 & 511];
        if (has_gib_pages && *entry == 0 && address % gib == 0 && end - address >= gib) {
            *entry = address | large_page_flags;
            address += gib;
            continue;
        }
        if ((*entry & 0x80) != 0) { // already there as a 1 GiB page
            address = (address | (gib - 1)) + 1;
            continue;
        }
        uint64_t* level2 = table_below(entry);
        if (level2 == NULL) {
            return;
        }
        level2[address >> 21 & 511] = address | large_page_flags;
        address += large;
    }
    __asm__ volatile("" : : : "memory");
}

static void add_range(struct range range) {
    total_bytes += range.end - range.start;
    if (range.start < 1 << 20) {
        range.start =
            1 << 20; // below lie the trampoline, the loader's tables and old firmware areas
    }
    if (range.start < (uintptr_t)image_end && range.end > (uintptr_t)image_end) {
        range.start = (uintptr_t)image_end;
    }
    range.start = round_up(range.start, page_bytes);
    range.end &= ~(uint64_t)(page_bytes - 1);
    if (range.start < range.end && range_count < memory_map_entries_max) {
        ranges[range_count++] = range;
    }
}

bool ram_read_start_info(void) {
    const struct start_info* info = (const struct start_info*)(uintptr_t)start_info_address;
    if (info->magic != 0x336ec578 || info->version < 1) {
        return false;
    }
    const char* text = (const char*)(uintptr_t)info->command_line;
    if (text != NULL) {
        for (size_t i = 0; i < sizeof command_line - 1 && text[i] != '\0'; ++i) {
            command_line[i] = text[i];
        }
    }
    start_info_rsdp = info->rsdp;
    const struct memory_map_entry* map_entries =
        (const struct memory_map_entry*)(uintptr_t)info->memory_map;
    for (uint32_t i = 0; i < info->memory_map_entries && i < memory_map_entries_max; ++i) {
        if (map_entries[i].type == memory_map_ram) {
            add_range((struct range){map_entries[i].address,
                                     map_entries[i].address + map_entries[i].bytes});
        }
    }
    for (uint32_t i = 0; i < range_count; ++i) {
        if (ranges[i].end > 1ull << 32) {
            map(ranges[i].start, ranges[i].end, page_large_ram);
        }
    }
    return range_count > 0;
}

uint64_t ram_bytes(void) {
    return total_bytes;
}

void ram_map_device(uint64_t address, uint64_t bytes) {
    if (address + bytes > 1ull << 32) {
        map(address, address + bytes, page_large_device);
    }
}

void* ram_allocate(uint64_t bytes, uint64_t alignment) {
    // From the first range that fits; page tables for the others may not exist yet, and the first
    // range always lies below 4 GiB.
    for (uint32_t i = 0; i < range_count; ++i) {
        uint64_t start = round_up(ranges[i].start, alignment);
        if (start <= ranges[i].end && ranges[i].end - start >= bytes) {
            ranges[i].start = start + bytes;
            return memset((void*)(uintptr_t)start, 0, bytes);
        }
    }
    return NULL;
}

bool ram_take_working_set(uint64_t pages) {
    uint64_t taken = 0;
    for (uint32_t i = 0; i < range_count && taken < pages; ++i) {
        uint64_t start = round_up(ranges[i].start, page_bytes);
        uint64_t available = ranges[i].end > start ? (ranges[i].end - start) / page_bytes : 0;
        uint64_t part = available < pages - taken ? available : pages - taken;
        if (part == 0) {
            continue;
        }
        working_set[working_set_parts] = (struct range){start, start + part * page_bytes};
        working_set_first[working_set_parts] = taken;
        ++working_set_parts;
        ranges[i].start = start + part * page_bytes;
        taken += part;
    }
    return taken == pages;
}

uint64_t* working_set_page(uint64_t index) {
    uint32_t part = 0;
    while (part + 1 < working_set_parts && index >= working_set_first[part + 1]) {
        ++part;
    }
    return (uint64_t*)(uintptr_t)(working_set[part].start +
                                  (index - working_set_first[part]) * page_bytes);
}
