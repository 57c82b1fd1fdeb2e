#include "options.h"

#include "../shared/number_option.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct options options = {
    .mem_rate = 20000,
    .vectors = 1,
    .tick_us = 1000,
    .disk_pattern = pattern_seq,
    .disk_qd = 1,
    .disk_block_bytes = 4096,
    .disk_span_bytes = 64 << 20,
    .disk_verify = 1,
    .net_rate = 10,
    .report_ms = 1000,
};

struct text_option {
    const char* key;
    char* value;
};

static const struct choice patterns[] = {
    {"seq", pattern_seq}, {"random", pattern_random}, {"hot", pattern_hot}, {0}};
static const struct choice disk_patterns[] = {
    {"seq", pattern_seq}, {"random", pattern_random}, {"mixed", pattern_mixed}, {0}};

static const struct number_option numbers[] = {
    {"cpus", &options.cpus, NULL, 0, cpus_max},
    {"mem_set", &options.mem_set_bytes, NULL, 0, 1ull << 40},
    {"mem_rate", &options.mem_rate, NULL, 0, 1ull << 32},
    {"mem_pattern", &options.mem_pattern, patterns, 0, 0},
    {"sse", &options.vectors, NULL, 0, 1},
    {"tick_us", &options.tick_us, NULL, 100, 1000000},
    {"disk_pattern", &options.disk_pattern, disk_patterns, 0, 0},
    {"disk_qd", &options.disk_qd, NULL, 1, disk_threads_max},
    {"disk_block", &options.disk_block_bytes, NULL, 512, block_bytes_max},
    {"disk_flush", &options.disk_flush, NULL, 0, 1ull << 32},
    {"disk_span", &options.disk_span_bytes, NULL, 0, 1ull << 40},
    {"disk_rate", &options.disk_rate, NULL, 0, 1ull << 32},
    {"disk_verify", &options.disk_verify, NULL, 0, 1},
    {"net_rate", &options.net_rate, NULL, 0, 100000},
    {"report_ms", &options.report_ms, NULL, 10, 86400000},
    {"run_ms", &options.run_ms, NULL, 0, 1ull << 40},
};

static const struct text_option texts[] = {
    {"disk", options.disk}, {"net", options.net}, {"out", options.out}};

static bool is_key(const char* word, const char* key, size_t length) {
    return strlen(key) == length && memcmp(word, key, length) == 0;
}

static bool apply(const char* word) {
    const char* equals = strchr(word, '=');
    if (equals == NULL) {
        return false;
    }
    size_t length = (size_t)(equals - word);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; ++i) {
        if (is_key(word, numbers[i].key, length)) {
            return number_option_set(&numbers[i], equals + 1);
        }
    }
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; ++i) {
        if (is_key(word, texts[i].key, length) && strlen(equals + 1) < path_bytes_max) {
            strcpy(texts[i].value, equals + 1);
            return true;
        }
    }
    return false;
}

const char* options_parse(int count, char** words) {
    for (int i = 0; i < count; ++i) {
        if (!apply(words[i])) {
            return words[i];
        }
    }
    // O_DIRECT needs whole sectors of the device; 512 is the least there is.
    return options.disk_block_bytes % 512 == 0 ? NULL : "disk_block must be a multiple of 512";
}
