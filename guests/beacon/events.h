// One JSON object per line, numbered and checksummed (README.md, "Lines"). Any CPU may write one:
// it holds a lock from begin to end.
#pragma once

#include <stdbool.h>
#include <stdint.h>

void event_begin(const char* name);
void event_number(const char* key, uint64_t value);
void event_signed(const char* key, int64_t value);
void event_hex(const char* key, uint64_t value);
void event_text(const char* key, const char* value);
void event_flag(const char* key, bool value);
void event_open_object(const char* key); // null inside a list
void event_close_object(void);
void event_open_list(const char* key);
void event_close_list(void);
void event_end(void);

// Counts an error and begins an "error" line of the kind; false (nothing to end) after the first
// hundred, which are enough to see what is wrong.
bool error_begin(const char* kind);
uint64_t errors_total(void);

// A panic may find the lock taken by the CPU that panicked.
void events_break_lock(void);
