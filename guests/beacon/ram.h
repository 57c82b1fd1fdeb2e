// RAM as the loader describes it: the memory map, the page tables beyond 4 GiB, a bump allocator
// for tables and DMA buffers, and the working set in what is left. Called by the first CPU only,
// before the load starts.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// Copies command line, memory map and RSDP address out of hvm_start_info; false if there is none.
bool ram_read_start_info(void);

extern char command_line[4096];
extern uint64_t start_info_rsdp;

uint64_t ram_bytes(void);

// Maps device memory above 4 GiB (below, everything is mapped from the start).
void ram_map_device(uint64_t address, uint64_t bytes);

// Zeroed memory, identity mapped, never freed; null when RAM is used up.
void* ram_allocate(uint64_t bytes, uint64_t alignment);

// Takes `pages` for the working set out of what the allocator has left; false if there are fewer.
bool ram_take_working_set(uint64_t pages);

// Address of a page of the working set.
uint64_t* working_set_page(uint64_t index);
