// Instructions C has no words for. Everything here is allowed in ring 3: ports by the TSS bitmap,
// HLT as the request to the ring-0 stub (see stubs.S).
#pragma once

#include "layout.h"

#include <stdbool.h>
#include <stdint.h>

static inline void port_write8(uint16_t port, uint8_t value) {
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void port_write16(uint16_t port, uint16_t value) {
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void port_write32(uint16_t port, uint32_t value) {
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t port_read8(uint16_t port) {
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

// Ordered after every earlier load, so that readings taken one after another may be compared.
static inline uint64_t tsc_read(void) {
    uint32_t low, high;
    __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

struct cpuid_result {
    uint32_t eax, ebx, ecx, edx;
};

static inline struct cpuid_result cpuid(uint32_t leaf, uint32_t subleaf) {
    struct cpuid_result result;
    __asm__ volatile("cpuid"
                     : "=a"(result.eax), "=b"(result.ebx), "=c"(result.ecx), "=d"(result.edx)
                     : "a"(leaf), "c"(subleaf));
    return result;
}

static inline void cpu_relax(void) {
    __asm__ volatile("pause" : : : "memory");
}

static inline void memory_barrier(void) {
    __asm__ volatile("mfence" : : : "memory");
}

static inline void compiler_barrier(void) {
    __asm__ volatile("" : : : "memory");
}

// Sleeps until an interrupt, unless one of the two counters has already left the given value.
// Returns with interrupts enabled in any case.
static inline void halt_unless_moved(volatile uint64_t* first,
                                     uint64_t first_seen,
                                     volatile uint64_t* second,
                                     uint64_t second_seen) {
    register uint64_t second_value __asm__("r8") = second_seen;
    __asm__ volatile(
        "hlt"
        :
        : "a"(SERVICE_HALT_UNLESS), "D"(first), "S"(first_seen), "d"(second), "r"(second_value)
        : "rcx", "memory", "cc");
}

_Noreturn static inline void halt_forever(void) {
    for (;;) {
        __asm__ volatile("hlt" : : "a"(SERVICE_HALT_FOREVER) : "rcx", "memory", "cc");
    }
}

// Line status of COM1; if it says "transmitter empty", `count` (at most 16) bytes have been sent.
static inline uint8_t serial_exchange(const char* bytes, uint32_t count) {
    uint32_t status = SERVICE_SERIAL;
    __asm__ volatile("hlt"
                     : "+a"(status), "+D"(count), "+S"(bytes)
                     :
                     : "rcx", "rdx", "memory", "cc");
    return (uint8_t)status;
}

// A dword of PCI configuration space, by its CF8 address.
static inline uint32_t pci_configuration(uint32_t address) {
    uint32_t value = SERVICE_PCI_READ;
    __asm__ volatile("hlt" : "+a"(value) : "D"(address) : "rcx", "rdx", "memory", "cc");
    return value;
}
