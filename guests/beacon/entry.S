// Ring-0 entry of every CPU: PVH (32-bit) for the first, INIT/SIPI (16-bit) for the others, both
// into long mode and out to ring 3 at once. KVM may interpret ring 0, so there are no loops here and
// no instruction beyond plain integer and system ones; page tables are constants of the image.
#include "layout.h"

#define MSR_EFER 0xc0000080
#define MSR_KVM_CLOCK 0x4b564d01

// Eight bytes of descriptor, as Linux has it: QEMU reads eight, every loader accepts eight.
    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 8, 18 // name bytes, descriptor bytes, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry

    .section .text.entry, "ax"
    .code32
    .globl pvh_entry
pvh_entry:
    // The first thing a host sees of this guest: one byte on the serial port.
    movl $COM1, %edx
    movb $'B', %al
    outb %al, %dx
    rdtsc
    movl %eax, entry_tsc
    movl %edx, entry_tsc + 4
    movl %ebx, start_info_address
    xorl %ebp, %ebp // CPU index, kept in EBP because CPUID overwrites EBX

enter_long_mode:
    cli
    cld
    lgdt gdt_pointer
    movl $0x620, %eax // PAE, OSFXSR, OSXMMEXCPT
    movl %eax, %cr4
    movl $pml4, %eax
    movl %eax, %cr3
    movl $MSR_EFER, %ecx
    rdmsr
    orl $0x100, %eax // LME
    wrmsr
    movl $0x80010033, %eax // PG, WP, NE, ET, MP, PE
    movl %eax, %cr0
    ljmp $SELECTOR_KERNEL_CODE, $long_mode

    .code64
long_mode:
    movl $SELECTOR_KERNEL_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs

    imull $RING0_STACK_BYTES, %ebp, %eax
    leal ring0_stacks + RING0_STACK_BYTES(%eax), %eax
    movl %eax, %esp

    // TSS: stack for ring 0, the I/O bitmap and the byte that must end it.
    imull $TSS_STRIDE, %ebp, %edi
    addl $tss_area, %edi
    movq %rax, 4(%rdi)
    movw $TSS_IO_BITMAP, 102(%rdi)
    movb $0xff, TSS_LIMIT(%rdi)

    // Its descriptor: limit, base 23..0, present available TSS, base 31..24. The area lies below
    // 4 GiB, so the upper eight bytes stay zero.
    movl %ebp, %esi
    shll $4, %esi
    leal SELECTOR_TSS(%esi), %ecx
    leal gdt(%ecx), %esi
    movw $TSS_LIMIT, (%rsi)
    movl %edi, %eax
    movw %ax, 2(%rsi)
    shrl $16, %eax
    movb %al, 4(%rsi)
    movb $0x89, 5(%rsi)
    movb %ah, 7(%rsi)
    ltr %cx
    lidt idt_pointer

    // With XSAVE, ring 3 gets the vector state the CPU offers: x87, SSE, AVX, AVX-512.
    movl $1, %eax
    xorl %ecx, %ecx
    cpuid
    btl $26, %ecx
    jnc 1f
    movq %cr4, %rax
    orl $0x40000, %eax
    movq %rax, %cr4
    movl $0xd, %eax
    xorl %ecx, %ecx
    cpuid
    andl $0xe7, %eax
    xorl %ecx, %ecx
    xorl %edx, %edx
    xsetbv
1:
    // kvmclock, where the hypervisor offers its second version.
    movl $0x40000000, %eax
    cpuid
    cmpl $0x4b4d564b, %ebx // "KVMK"
    jne 2f
    movl $0x40000001, %eax
    cpuid
    btl $3, %eax
    jnc 2f
    movl %ebp, %eax
    shll $6, %eax
    leal pvclock_area + 1(%eax), %eax
    xorl %edx, %edx
    movl $MSR_KVM_CLOCK, %ecx
    wrmsr
2:
    // To ring 3, interrupts still off: the IDT may not be filled yet. IOPL 3 beside the bitmap: a
    // KVM that runs ring 3 alone knows only the bitmap, and QEMU's emulated SVM refuses the bitmap of
    // a TSS that was restored, because it is marked busy.
    movl %ebp, %edi
    imull $RING3_STACK_BYTES, %ebp, %eax
    leal ring3_stacks + RING3_STACK_BYTES - 8(%eax), %eax
    pushq $SELECTOR_USER_DATA
    pushq %rax
    pushq $0x3002
    pushq $SELECTOR_USER_CODE
    pushq $cpu_entry
    movl $SELECTOR_USER_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    iretq

// Copied to AP_TRAMPOLINE; runs in real mode with CS base there.
    .section .rodata.trampoline, "a"
    .code16
    .globl ap_trampoline, ap_trampoline_end
ap_trampoline:
    cli
    lgdtl %cs:ap_gdt_pointer - ap_trampoline
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $SELECTOR_KERNEL_CODE32, $ap_protected
    .balign 4
ap_gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
ap_trampoline_end:

    .section .text.entry, "ax"
    .code32
ap_protected:
    movl $SELECTOR_KERNEL_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl ap_cpu_index, %ebp
    jmp enter_long_mode

    .data
    .balign 16
gdt:
    .quad 0
    .quad 0x00af9b000000ffff // kernel code, 64-bit
    .quad 0x00cf93000000ffff // kernel data
    .quad 0x00cf9b000000ffff // kernel code, 32-bit
    .quad 0x00cff3000000ffff // user data
    .quad 0x00affb000000ffff // user code, 64-bit
    .fill CPU_LIMIT * 16, 1, 0
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt
idt_pointer:
    .word 256 * 16 - 1
    .quad idt

// Identity map of the first 4 GiB in 2 MiB pages, all of it for ring 3: RAM below 3 GiB, the
// device window (uncached) above. Ring 3 adds what lies beyond.
    .balign 4096
    .globl pml4, pdpt
pml4:
    .quad pdpt + 7
    .fill 511, 8, 0
pdpt:
    .quad page_directories + 0x0007
    .quad page_directories + 0x1007
    .quad page_directories + 0x2007
    .quad page_directories + 0x3007
    .fill 508, 8, 0
page_directories:
    .set address, 0
    .rept 3 * 512
    .quad address + 0xe7 // present, writable, user, accessed, dirty, large
    .set address, address + 0x200000
    .endr
    .rept 512
    .quad address + 0xff // the same with PWT and PCD
    .set address, address + 0x200000
    .endr

    .bss
    .balign 4096
    .globl ring0_stacks, ring3_stacks, tss_area, idt, pvclock_area
ring0_stacks:
    .skip CPU_LIMIT * RING0_STACK_BYTES
ring3_stacks:
    .skip CPU_LIMIT * RING3_STACK_BYTES
tss_area:
    .skip CPU_LIMIT * TSS_STRIDE
idt:
    .skip 256 * 16
    .balign 64
pvclock_area:
    .skip CPU_LIMIT * 64
    .globl entry_tsc, start_info_address, ap_cpu_index
    .balign 8
entry_tsc:
    .skip 8
start_info_address:
    .skip 4
ap_cpu_index:
    .skip 4
    .section .note.GNU-stack, "", @progbits
