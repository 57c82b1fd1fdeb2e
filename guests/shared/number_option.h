// Options whose value is a number or one of some words, as every test guest takes them.
// Freestanding: it needs nothing but the compiler.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct choice {
    const char* name;
    uint64_t value;
};

struct number_option {
    const char* key;
    uint64_t* value;
    const struct choice* choices; // ends with a null name; null: a number, with K, M or G behind it
    uint64_t min, max;
};

static inline bool same_text(const char* left, const char* right) {
    while (*left != '\0' && *left == *right) {
        ++left;
        ++right;
    }
    return *left == *right;
}

static inline bool parse_number(const char* text, uint64_t* value) {
    uint64_t number = 0;
    const char* cursor = text;
    for (; *cursor >= '0' && *cursor <= '9'; ++cursor) {
        if (number > UINT64_MAX / 16) {
            return false;
        }
        number = number * 10 + (uint64_t)(*cursor - '0');
    }
    if (cursor == text) {
        return false;
    }
    unsigned shift = *cursor == 'K' ? 10 : *cursor == 'M' ? 20 : *cursor == 'G' ? 30 : 0;
    cursor += shift != 0;
    if (*cursor != '\0' || number > UINT64_MAX >> shift) {
        return false;
    }
    *value = number << shift;
    return true;
}

// False, and nothing is changed, if the text is none of the choices or no number in range.
static inline bool number_option_set(const struct number_option* option, const char* text) {
    if (option->choices == NULL) {
        uint64_t value;
        if (!parse_number(text, &value) || value < option->min || value > option->max) {
            return false;
        }
        *option->value = value;
        return true;
    }
    for (const struct choice* choice = option->choices; choice->name != NULL; ++choice) {
        if (same_text(choice->name, text)) {
            *option->value = choice->value;
            return true;
        }
    }
    return false;
}
