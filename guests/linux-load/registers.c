#include "registers.h"

#include "events.h"
#include "hash.h"

#include <sys/syscall.h>

#include <immintrin.h>

enum {
    turns_per_set = 1000,
    spins = 64, // so that the registers are also live while the CPU runs user code
    mxcsr_default = 0x1f80,
    xmm_words = 16 * 2,
    ymm_words = 16 * 4,
    zmm_words = 32 * 8,
};

const char* registers_kind(void) {
    return __builtin_cpu_supports("avx512f") ? "zmm"
           : __builtin_cpu_supports("avx")   ? "ymm"
                                             : "xmm";
}

#define EACH_16(move)                                                                              \
    move(0) move(1) move(2) move(3) move(4) move(5) move(6) move(7) move(8) move(9) move(10)       \
        move(11) move(12) move(13) move(14) move(15)
#define EACH_UPPER_16(move)                                                                        \
    move(16) move(17) move(18) move(19) move(20) move(21) move(22) move(23) move(24) move(25)      \
        move(26) move(27) move(28) move(29) move(30) move(31)

#define LOAD_XMM(n) "movdqu 16*" #n "(%[values]), %%xmm" #n "\n"
#define LOAD_YMM(n) "vmovdqu 32*" #n "(%[values]), %%ymm" #n "\n"
#define LOAD_ZMM(n) "vmovdqu64 64*" #n "(%[values]), %%zmm" #n "\n"
#define STORE_XMM(n) "movdqu %%xmm" #n ", 16*" #n "(%[found])\n"
#define STORE_YMM(n) "vmovdqu %%ymm" #n ", 32*" #n "(%[found])\n"
#define STORE_ZMM(n) "vmovdqu64 %%zmm" #n ", 64*" #n "(%[found])\n"

// Load, system call, spin, store in one piece: nothing the compiler makes comes between.
#define HOLD(loads, stores)                                                                        \
    __asm__ volatile(loads "syscall\n"                                                             \
                           "mov %[spins], %%ecx\n"                                                 \
                           "1: pause\n"                                                            \
                           "dec %%ecx\n"                                                           \
                           "jnz 1b\n" stores                                                       \
                     : "+a"(number)                                                                \
                     : [values] "r"(values),                                                       \
                       [found] "r"(found),                                                         \
                       [spins] "i"(spins),                                                         \
                       "D"(first),                                                                 \
                       "S"(second),                                                                \
                       "d"(third),                                                                 \
                       "r"(fourth)                                                                 \
                     : "rcx",                                                                      \
                       "r11",                                                                      \
                       "memory",                                                                   \
                       "xmm0",                                                                     \
                       "xmm1",                                                                     \
                       "xmm2",                                                                     \
                       "xmm3",                                                                     \
                       "xmm4",                                                                     \
                       "xmm5",                                                                     \
                       "xmm6",                                                                     \
                       "xmm7",                                                                     \
                       "xmm8",                                                                     \
                       "xmm9",                                                                     \
                       "xmm10",                                                                    \
                       "xmm11",                                                                    \
                       "xmm12",                                                                    \
                       "xmm13",                                                                    \
                       "xmm14",                                                                    \
                       "xmm15")

static void hold_during(uint32_t words,
                        const uint64_t* values,
                        uint64_t* found,
                        long number,
                        long first,
                        long second,
                        long third) {
    register long fourth __asm__("r10") = 0;
    switch (words) {
    case zmm_words:
        HOLD(EACH_16(LOAD_ZMM) EACH_UPPER_16(LOAD_ZMM),
             EACH_16(STORE_ZMM) EACH_UPPER_16(STORE_ZMM));
        break;
    case ymm_words:
        HOLD(EACH_16(LOAD_YMM), EACH_16(STORE_YMM));
        break;
    default:
        HOLD(EACH_16(LOAD_XMM), EACH_16(STORE_XMM));
        break;
    }
}

static void new_set(struct register_hold* hold) {
    for (uint32_t i = 0; i < hold->words; ++i) {
        hold->expected[i] = random_next(&hold->seed);
    }
    // The rounding mode is a harmless part of MXCSR that can differ from its reset value.
    hold->mxcsr = mxcsr_default | (uint32_t)(hold->seed & 0x6000);
}

void registers_start(struct register_hold* hold, uint32_t cpu) {
    const char* kind = registers_kind();
    hold->words = kind[0] == 'z' ? zmm_words : kind[0] == 'y' ? ymm_words : xmm_words;
    hold->seed = 0x5eed0000ull + cpu + 1;
    new_set(hold);
}

static void
compare(struct register_hold* hold, uint32_t cpu, const uint64_t* found, uint32_t mxcsr) {
    uint32_t wrong = 0;
    while (wrong < hold->words && found[wrong] == hold->expected[wrong]) {
        ++wrong;
    }
    if (wrong == hold->words && mxcsr == hold->mxcsr) {
        return;
    }
    atomic_fetch_add(&hold->errors, 1);
    if (error_begin(wrong < hold->words ? "register" : "mxcsr")) {
        event_number("cpu", cpu);
        event_number("word", wrong);
        event_hex("found", wrong < hold->words ? found[wrong] : mxcsr);
        event_hex("expected", wrong < hold->words ? hold->expected[wrong] : hold->mxcsr);
        event_end();
    }
    new_set(hold);
}

static void
hold_and_check(struct register_hold* hold, uint32_t cpu, long number, long flags, long deadline) {
    uint64_t found[register_words_max];
    _mm_setcsr(hold->mxcsr);
    hold_during(hold->words, hold->expected, found, number, CLOCK_MONOTONIC, flags, deadline);
    uint32_t mxcsr = _mm_getcsr();
    _mm_setcsr(mxcsr_default);
    compare(hold, cpu, found, mxcsr);
    atomic_fetch_add(&hold->checks, 1);
    if (++hold->turns % turns_per_set == 0) {
        new_set(hold);
    }
}

void registers_sleep(struct register_hold* hold, uint32_t cpu, const struct timespec* deadline) {
    if (hold->words == 0) {
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, deadline, NULL);
        return;
    }
    hold_and_check(hold, cpu, SYS_clock_nanosleep, TIMER_ABSTIME, (long)deadline);
}

void registers_yield(struct register_hold* hold, uint32_t cpu) {
    if (hold->words != 0) {
        hold_and_check(hold, cpu, SYS_sched_yield, 0, 0);
    }
}
