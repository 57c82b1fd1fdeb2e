// What ring 0 does after boot: count and acknowledge interrupts, halt on behalf of ring 3, and turn
// an exception into a jump to panic_main in ring 3. Kept to a handful of instructions each, because
// they may be interpreted.
#include "layout.h"

#define LAPIC_EOI 0xfee000b0

    .text
    .code64

// One stub per interrupt vector from VECTOR_FIRST, STUB_BYTES apart.
    .globl interrupt_stubs
    .balign STUB_BYTES
interrupt_stubs:
    .set vector, VECTOR_FIRST
    .rept 256 - VECTOR_FIRST
    .balign STUB_BYTES
    .if vector == VECTOR_SPURIOUS
    iretq // the LAPIC expects no EOI for this one
    .else
    lock incq irq_counts + 8 * vector
    .if vector >= VECTOR_DEVICE && vector < VECTOR_DEVICE + VECTOR_DEVICE_LIMIT
    lock incq device_wakes
    .endif
    jmp acknowledge
    .endif
    .set vector, vector + 1
    .endr

acknowledge:
    pushq %rax
    movl $LAPIC_EOI, %eax
    movl $0, (%rax)
    popq %rax
    iretq

// Exceptions 0..31: the record is filled by the first one, any later one (also one in the panic
// itself) stops its CPU for good.
    .globl exception_stubs
    .balign STUB_BYTES
exception_stubs:
    .set vector, 0
    .rept 32
    .balign STUB_BYTES
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
    pushq $0
    .endif
    .if vector == 13
    jmp general_protection
    .else
    pushq $vector
    jmp exception_common
    .endif
    .set vector, vector + 1
    .endr

// HLT executed by ring 3 asks for the service in EAX; any other #GP is an exception like the rest.
// (Not SYSCALL: a KVM that runs ring 3 natively was seen to deliver it to LSTAR still at CPL 3.)
// Every service returns with interrupts on, RCX lost.
general_protection:
    cmpw $SELECTOR_USER_CODE, 16(%rsp)
    jne 2f
    movq 8(%rsp), %rcx
    cmpb $0xf4, (%rcx)
    jne 2f
    addq $8, %rsp // the error code
    incq (%rsp)
    testl %eax, %eax
    jnz other_services

// SERVICE_HALT_UNLESS: RDI, RDX point to counters, RSI, R8 are the values the caller saw. Halts only if
// neither has moved, so that an interrupt between the caller's check and the halt is not slept through.
    cmpq %rsi, (%rdi)
    jne 1f
    cmpq %r8, (%rdx)
    jne 1f
    sti
    hlt
1:  orl $0x200, 16(%rsp)
    iretq
2:  pushq $13

exception_common:
    lock btsl $0, panic_claimed
    jc halt_forever
    popq panic_record
    popq panic_record + 8
    popq panic_record + 16
    popq panic_record + 24
    popq panic_record + 32
    popq panic_record + 40
    movq %cr2, %rax
    movq %rax, panic_record + 48
    xorl %eax, %eax
    str %ax
    subl $SELECTOR_TSS, %eax
    shrl $4, %eax
    movq %rax, panic_record + 56
    pushq $SELECTOR_USER_DATA
    pushq $panic_stack_end - 8
    pushq $2
    pushq $SELECTOR_USER_CODE
    pushq $panic_main
    iretq

other_services:
    cmpl $SERVICE_SERIAL, %eax
    je serial
    cmpl $SERVICE_PCI_READ, %eax
    jne halt_forever

// SERVICE_PCI_READ: the configuration dword at the address in EDI, to EAX.
    movl %edi, %eax
    movl $PCI_ADDRESS, %edx
    outl %eax, %dx
    movl $PCI_DATA, %edx
    inl %dx, %eax
    jmp 1b

// SERVICE_SERIAL: reads COM1's line status to AL and, if its FIFO is empty, writes EDI bytes (at most
// the 16 it holds) from RSI, each an exit of its own.
serial:
    movl $COM1 + 5, %edx
    inb %dx, %al
    testb $0x20, %al
    jz 1b
    testl %edi, %edi
    jz 1b
    movl $COM1, %edx
3:  outsb
    decl %edi
    jnz 3b
    jmp 1b

halt_forever:
    cli
    hlt
    jmp halt_forever

    .bss
    .balign 64
    .globl irq_counts, device_wakes, panic_record, panic_claimed
irq_counts:
    .skip 256 * 8
device_wakes:
    .skip 8
panic_record:
    .skip 64
panic_claimed:
    .skip 8
    .balign 16
    .skip 16384
panic_stack_end:
    .section .note.GNU-stack, "", @progbits
