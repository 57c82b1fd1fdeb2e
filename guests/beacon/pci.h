// PCI configuration space by ports CF8/CFC, bus 0. Offsets are aligned to their width.
#pragma once

#include <stdint.h>

enum {
    pci_vendor = 0x00,
    pci_command = 0x04,
    pci_header_type = 0x0e,
    pci_bar0 = 0x10,
    pci_capabilities = 0x34,
    pci_command_memory = 2,
    pci_command_master = 4,
    pci_command_no_intx = 0x400,
};

struct pci_function {
    uint8_t device, function;
};

uint8_t pci_read8(struct pci_function at, uint32_t offset);
uint16_t pci_read16(struct pci_function at, uint32_t offset);
uint32_t pci_read32(struct pci_function at, uint32_t offset);
void pci_write16(struct pci_function at, uint32_t offset, uint16_t value);

// Address of a memory BAR (0: none or not assigned).
uint64_t pci_bar(struct pci_function at, uint32_t index);
