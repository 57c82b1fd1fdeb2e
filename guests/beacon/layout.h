// Numbers shared by the assembly stub and the C code: selectors, vectors, per-CPU strides.
#pragma once

#define CPU_LIMIT 64

// GDT.
#define SELECTOR_KERNEL_CODE 0x08
#define SELECTOR_KERNEL_DATA 0x10
#define SELECTOR_KERNEL_CODE32 0x18
#define SELECTOR_USER_DATA 0x23
#define SELECTOR_USER_CODE 0x2b
#define SELECTOR_TSS 0x30 // one 16-byte descriptor per CPU from here

// A TSS with an all-zero I/O bitmap: ring 3 may use every port. IOPL would be shorter, but a KVM
// that runs ring 3 natively and interprets ring 0 looks at the bitmap only.
#define TSS_IO_BITMAP 104
#define TSS_LIMIT (TSS_IO_BITMAP + 8192)
#define TSS_STRIDE 8448

#define RING0_STACK_BYTES 4096
#define RING3_STACK_BYTES 32768

#define AP_TRAMPOLINE 0x8000

// Interrupt vectors. Every CPU has its own timer vector, so that its counter needs no per-CPU
// addressing in ring 0; an IPI that only wakes a CPU uses the same vector.
#define VECTOR_FIRST 0x20
#define VECTOR_TIMER 0x40
#define VECTOR_DEVICE 0x80
#define VECTOR_DEVICE_LIMIT 16
#define VECTOR_SPURIOUS 0xff
#define STUB_BYTES 32

// What ring 0 does when ring 3 asks for it (stubs.S). The last two could be done in ring 3, but
// where ring 0 is interpreted an exit costs about 1 us there and 20 to 70 us in ring 3, and a line
// of text is hundreds of exits.
#define SERVICE_HALT_UNLESS 0
#define SERVICE_HALT_FOREVER 1
#define SERVICE_SERIAL 2
#define SERVICE_PCI_READ 3

#define COM1 0x3f8
#define PCI_ADDRESS 0xcf8
#define PCI_DATA 0xcfc
