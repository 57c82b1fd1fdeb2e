// Lines of output: JSON with a number that has no gaps and a checksum. begin takes a lock that end
// gives back, so whole lines stay together. Any thread.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// Where lines go from now on.
void events_open(int fd);
void event_begin(const char* name);
void event_end(void);
void event_number(const char* key, uint64_t value);
void event_hex(const char* key, uint64_t value);
void event_text(const char* key, const char* value);
void event_flag(const char* key, bool value);
void event_open_object(const char* key); // null key: an element of a list
void event_close_object(void);
void event_open_list(const char* key);
void event_close_list(void);

// Counts an error; begins its line and returns true for the first hundred.
bool error_begin(const char* kind);
uint64_t errors_total(void);
