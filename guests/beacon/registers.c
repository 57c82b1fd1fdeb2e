#include "registers.h"

#include "cpu.h"
#include "events.h"
#include "memory.h"

enum {
    checks_per_set = 1000,
    mxcsr_default = 0x1f80,
    xmm_words = 16 * 2,
    ymm_words = 16 * 4,
    zmm_words = 32 * 8,
};

enum kind { xmm, ymm, zmm };

// From CPUID and not from XGETBV: a KVM that runs ring 3 natively shows the host's XCR0 there. The
// boot stub has enabled what CPUID offers.
static enum kind kind_here(void) {
    struct cpuid_result features = cpuid(1, 0);
    if ((features.ecx >> 26 & 1) == 0) {
        return xmm;
    }
    uint32_t states = cpuid(0xd, 0).eax;
    if ((states & 0xe6) == 0xe6 && (cpuid(7, 0).ebx >> 16 & 1) != 0) {
        return zmm;
    }
    return (states & 6) == 6 && (features.ecx >> 28 & 1) != 0 ? ymm : xmm;
}

const char* registers_kind(void) {
    static const char* const names[] = {"xmm", "ymm", "zmm"};
    return names[kind_here()];
}

#define EACH_16(move)                                                                              \
    move(0) move(1) move(2) move(3) move(4) move(5) move(6) move(7) move(8) move(9) move(10)       \
        move(11) move(12) move(13) move(14) move(15)
#define EACH_UPPER_16(move)                                                                        \
    move(16) move(17) move(18) move(19) move(20) move(21) move(22) move(23) move(24) move(25)      \
        move(26) move(27) move(28) move(29) move(30) move(31)

#define LOAD_XMM(n) "movdqu 16*" #n "(%0), %%xmm" #n "\n"
#define LOAD_YMM(n) "vmovdqu 32*" #n "(%0), %%ymm" #n "\n"
#define LOAD_ZMM(n) "vmovdqu64 64*" #n "(%0), %%zmm" #n "\n"
#define STORE_XMM(n) "movdqu %%xmm" #n ", 16*" #n "(%0)\n"
#define STORE_YMM(n) "vmovdqu %%ymm" #n ", 32*" #n "(%0)\n"
#define STORE_ZMM(n) "vmovdqu64 %%zmm" #n ", 64*" #n "(%0)\n"

// No clobbers are declared: the compiler is told not to know these registers.
static void load(enum kind kind, const uint64_t* values) {
    switch (kind) {
    case xmm:
        __asm__ volatile(EACH_16(LOAD_XMM) : : "r"(values) : "memory");
        break;
    case ymm:
        __asm__ volatile(EACH_16(LOAD_YMM) : : "r"(values) : "memory");
        break;
    case zmm:
        __asm__ volatile(EACH_16(LOAD_ZMM) EACH_UPPER_16(LOAD_ZMM) : : "r"(values) : "memory");
        break;
    }
}

static void store(enum kind kind, uint64_t* values) {
    switch (kind) {
    case xmm:
        __asm__ volatile(EACH_16(STORE_XMM) : : "r"(values) : "memory");
        break;
    case ymm:
        __asm__ volatile(EACH_16(STORE_YMM) : : "r"(values) : "memory");
        break;
    case zmm:
        __asm__ volatile(EACH_16(STORE_ZMM) EACH_UPPER_16(STORE_ZMM) : : "r"(values) : "memory");
        break;
    }
}

static enum kind kind_of(const struct register_hold* hold) {
    return hold->words == zmm_words ? zmm : hold->words == ymm_words ? ymm : xmm;
}

static void load_new_set(struct register_hold* hold) {
    for (uint32_t i = 0; i < hold->words; ++i) {
        hold->expected[i] = random_next(&hold->seed);
    }
    // The rounding mode is a harmless part of MXCSR that can differ from its reset value.
    hold->mxcsr = mxcsr_default | (uint32_t)(hold->seed & 0x6000);
    load(kind_of(hold), hold->expected);
    __asm__ volatile("ldmxcsr %0" : : "m"(hold->mxcsr));
}

void registers_start(struct register_hold* hold, uint32_t cpu) {
    static const uint32_t words[] = {xmm_words, ymm_words, zmm_words};
    hold->words = words[kind_here()];
    hold->seed = 0x5eed0000ull + cpu + 1;
    load_new_set(hold);
}

static void
complain(const struct register_hold* hold, uint32_t cpu, uint32_t word, uint64_t found) {
    if (error_begin("register")) {
        event_number("cpu", cpu);
        event_number("word", word);
        event_hex("found", found);
        event_hex("expected", hold->expected[word]);
        event_end();
    }
}

void registers_check(struct register_hold* hold, uint32_t cpu) {
    if (hold->words == 0) {
        return;
    }
    uint64_t found[register_count_max * register_words_max];
    store(kind_of(hold), found);
    uint32_t mxcsr;
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    bool wrong = false;
    for (uint32_t i = 0; i < hold->words; ++i) {
        if (found[i] != hold->expected[i]) {
            complain(hold, cpu, i, found[i]);
            wrong = true;
            break;
        }
    }
    if (mxcsr != hold->mxcsr) {
        if (error_begin("mxcsr")) {
            event_number("cpu", cpu);
            event_hex("found", mxcsr);
            event_hex("expected", hold->mxcsr);
            event_end();
        }
        wrong = true;
    }
    hold->errors += wrong;
    if (++hold->checks % checks_per_set == 0 || wrong) {
        load_new_set(hold);
    }
}
