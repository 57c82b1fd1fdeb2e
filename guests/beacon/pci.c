#include "pci.h"

#include "cpu.h"

static uint32_t address_of(struct pci_function at, uint32_t offset) {
    return 0x80000000u | (uint32_t)at.device << 11 | (uint32_t)at.function << 8 | (offset & 0xfc);
}

uint8_t pci_read8(struct pci_function at, uint32_t offset) {
    return (uint8_t)(pci_read32(at, offset) >> 8 * (offset % 4));
}

uint16_t pci_read16(struct pci_function at, uint32_t offset) {
    return (uint16_t)(pci_read32(at, offset) >> 8 * (offset % 4));
}

uint32_t pci_read32(struct pci_function at, uint32_t offset) {
    return pci_configuration(address_of(at, offset));
}

void pci_write16(struct pci_function at, uint32_t offset, uint16_t value) {
    port_write32(PCI_ADDRESS, address_of(at, offset));
    port_write16((uint16_t)(PCI_DATA + offset % 4), value);
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
