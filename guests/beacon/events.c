#include "events.h"

#include "apic.h"
#include "cpu.h"
#include "memory.h"
#include "output.h"
#include "vcpu.h"

enum { line_bytes_max = 32768, trailer_bytes = 32, error_lines_max = 100 };

static char line[line_bytes_max];
static uint32_t length;
static uint32_t length_limit = line_bytes_max - trailer_bytes; // room for the checksum field
static bool needs_comma;
static uint64_t next_number;
static volatile bool locked;
static volatile uint64_t errors;

static void put(char character) {
    if (length < length_limit) {
        line[length++] = character;
    }
}

static void put_text(const char* text) {
    while (*text != '\0') {
        put(*text++);
    }
}

static void put_number(uint64_t value) {
    char digits[20];
    uint32_t count = 0;
    do {
        digits[count++] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    while (count > 0) {
        put(digits[--count]);
    }
}

static void put_hex(uint64_t value, uint32_t digits) {
    while (digits-- > 0) {
        put("0123456789abcdef"[value >> 4 * digits & 15]);
    }
}

static void put_string(const char* text) {
    put('"');
    for (; *text != '\0'; ++text) {
        bool plain = *text >= ' ' && *text <= '~' && *text != '"' && *text != '\\';
        put(plain ? *text : '?');
    }
    put('"');
}

static void put_key(const char* key) {
    if (needs_comma) {
        put(',');
    }
    if (key != 0) {
        put_string(key);
        put(':');
    }
    needs_comma = true;
}

void event_begin(const char* name) {
    while (__atomic_exchange_n(&locked, true, __ATOMIC_ACQUIRE)) {
        cpu_relax();
    }
    length = 0;
    needs_comma = false;
    put('{');
    event_number("n", next_number++);
    event_text("event", name);
}

void event_number(const char* key, uint64_t value) {
    put_key(key);
    put_number(value);
}

void event_signed(const char* key, int64_t value) {
    put_key(key);
    if (value < 0) {
        put('-');
    }
    put_number(value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

void event_hex(const char* key, uint64_t value) {
    put_key(key);
    put('"');
    put_hex(value, 16);
    put('"');
}

void event_text(const char* key, const char* value) {
    put_key(key);
    put_string(value);
}

void event_flag(const char* key, bool value) {
    put_key(key);
    put_text(value ? "true" : "false");
}

void event_open_object(const char* key) {
    put_key(key);
    put('{');
    needs_comma = false;
}

void event_close_object(void) {
    put('}');
    needs_comma = true;
}

void event_open_list(const char* key) {
    put_key(key);
    put('[');
    needs_comma = false;
}

void event_close_list(void) {
    put(']');
    needs_comma = true;
}

void event_end(void) {
    uint32_t checksum = fnv1a32(line, length);
    length_limit = line_bytes_max;
    put_text(",\"crc\":\"");
    put_hex(checksum, 8);
    put_text("\"}\n");
    length_limit = line_bytes_max - trailer_bytes;
    output_write(line, length);
    __atomic_store_n(&locked, false, __ATOMIC_RELEASE);
    apic_wake(0, vcpus[0].apic_id); // it drains the output and may be halted
}

bool error_begin(const char* kind) {
    uint64_t number = __atomic_fetch_add(&errors, 1, __ATOMIC_RELAXED);
    if (number >= error_lines_max) {
        return false;
    }
    event_begin("error");
    event_text("kind", kind);
    event_number("guest_us", clock_us(tsc_read()));
    return true;
}

uint64_t errors_total(void) {
    return errors;
}

void events_break_lock(void) {
    locked = false;
}
