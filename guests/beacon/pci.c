#include "pci.h"

#include "cpu.h"

enum { address_port = 0xcf8, data_port = 0xcfc };

static void select(struct pci_function at, uint32_t offset) {
    port_write32(address_port,
                 0x80000000u | (uint32_t)at.device << 11 | (uint32_t)at.function << 8 |
                     (offset & 0xfc));
}

uint8_t pci_read8(struct pci_function at, uint32_t offset) {
    select(at, offset);
    return port_read8((uint16_t)(data_port + offset % 4));
}

uint16_t pci_read16(struct pci_function at, uint32_t offset) {
    select(at, offset);
    return port_read16((uint16_t)(data_port + offset % 4));
}

uint32_t pci_read32(struct pci_function at, uint32_t offset) {
    select(at, offset);
    return port_read32(data_port);
}

void pci_write16(struct pci_function at, uint32_t offset, uint16_t value) {
    select(at, offset);
    port_write16((uint16_t)(data_port + offset % 4), value);
}

uint64_t pci_bar(struct pci_function at, uint32_t index) {
    uint32_t low = pci_read32(at, pci_bar0 + 4 * index);
    if ((low & 1) != 0) {
        return 0;
    }
    uint64_t address = low & ~15u;
    if ((low >> 1 & 3) == 2) {
        address |= (uint64_t)pci_read32(at, pci_bar0 + 4 * index + 4) << 32;
    }
    return address;
}
