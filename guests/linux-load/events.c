#include "events.h"

#include "clocks.h"
#include "hash.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

enum { line_bytes_max = 32768, trailer_bytes = 32, error_lines_max = 100 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char line[line_bytes_max];
static size_t length;
static bool needs_comma;
static uint64_t next_number;
static int output = STDOUT_FILENO;
static _Atomic uint64_t errors;

void events_open(int fd) {
    output = fd;
}

__attribute__((format(printf, 1, 2))) static void put(const char* format, ...) {
    va_list values;
    va_start(values, format);
    size_t room = sizeof line - trailer_bytes - length;
    int wanted = vsnprintf(line + length, room, format, values);
    va_end(values);
    // What does not fit is left out: such a line is not JSON and the reader says so.
    if (wanted > 0 && (size_t)wanted < room) {
        length += (size_t)wanted;
    }
}

static void put_string(const char* text) {
    put("\"");
    for (; *text != '\0'; ++text) {
        bool plain = *text >= ' ' && *text <= '~' && *text != '"' && *text != '\\';
        put("%c", plain ? *text : '?');
    }
    put("\"");
}

static void put_key(const char* key) {
    if (needs_comma) {
        put(",");
    }
    if (key != NULL) {
        put_string(key);
        put(":");
    }
    needs_comma = true;
}

void event_begin(const char* name) {
    pthread_mutex_lock(&lock);
    length = 0;
    needs_comma = false;
    put("{");
    event_number("n", next_number++);
    event_text("event", name);
}

void event_number(const char* key, uint64_t value) {
    put_key(key);
    put("%" PRIu64, value);
}

void event_hex(const char* key, uint64_t value) {
    put_key(key);
    put("\"%016" PRIx64 "\"", value);
}

void event_text(const char* key, const char* value) {
    put_key(key);
    put_string(value);
}

void event_flag(const char* key, bool value) {
    put_key(key);
    put(value ? "true" : "false");
}

void event_open_object(const char* key) {
    put_key(key);
    put("{");
    needs_comma = false;
}

void event_close_object(void) {
    put("}");
    needs_comma = true;
}

void event_open_list(const char* key) {
    put_key(key);
    put("[");
    needs_comma = false;
}

void event_close_list(void) {
    put("]");
    needs_comma = true;
}

void event_end(void) {
    uint32_t checksum = fnv1a32(line, length);
    length +=
        (size_t)snprintf(line + length, trailer_bytes, ",\"crc\":\"%08" PRIx32 "\"}\n", checksum);
    for (size_t done = 0; done < length;) {
        ssize_t written = write(output, line + done, length - done);
        if (written < 0) {
            break; // the console is gone; there is nobody left to tell
        }
        done += (size_t)written;
    }
    pthread_mutex_unlock(&lock);
}

bool error_begin(const char* kind) {
    if (atomic_fetch_add(&errors, 1) >= error_lines_max) {
        return false;
    }
    event_begin("error");
    event_text("kind", kind);
    event_number("guest_us", clocks_since_start_us());
    return true;
}

uint64_t errors_total(void) {
    return atomic_load(&errors);
}
