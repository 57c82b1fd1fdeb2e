#include "options.h"

#include "../shared/number_option.h"
#include "memory.h"

#include <stddef.h>

struct options options = {
    .out = output_serial,
    .sse = 1,
    .disk_qd = 1,
    .disk_block_bytes = 4096,
    .disk_verify = 1,
    .net_rate = 10,
    .irq = 1,
    .report_ms = 1000,
};

enum { word_bytes_max = 96 };

static const struct choice outputs[] = {
    {"serial", output_serial}, {"virtio", output_virtio}, {"both", 3}, {0}};
static const struct choice patterns[] = {
    {"seq", pattern_seq}, {"random", pattern_random}, {"hot", pattern_hot}, {0}};
static const struct choice disk_patterns[] = {
    {"seq", pattern_seq}, {"random", pattern_random}, {0}};
static const struct choice disks[] = {{"none", 0}, {"journal", 1}, {0}};
static const struct choice nets[] = {{"none", 0}, {"heartbeat", 1}, {0}};
static const struct choice exits[] = {
    {"acpi", exit_acpi}, {"reboot", exit_reboot}, {"halt", exit_halt}, {0}};

static const struct number_option table[] = {
    {"cpus", &options.cpus, NULL, 0, 64},
    {"out", &options.out, outputs, 0, 0},
    {"mem_set", &options.mem_set_bytes, NULL, 0, 1ull << 44},
    {"mem_rate", &options.mem_rate, NULL, 0, 1ull << 32},
    {"mem_pattern", &options.mem_pattern, patterns, 0, 0},
    {"sse", &options.sse, NULL, 0, 1},
    {"disk", &options.disk, disks, 0, 0},
    {"disk_index", &options.disk_index, NULL, 0, 31},
    {"disk_pattern", &options.disk_pattern, disk_patterns, 0, 0},
    {"disk_qd", &options.disk_qd, NULL, 1, 64},
    {"disk_block", &options.disk_block_bytes, NULL, 512, 65536},
    {"disk_flush", &options.disk_flush, NULL, 0, 1ull << 32},
    {"disk_span", &options.disk_span_bytes, NULL, 0, 1ull << 44},
    {"disk_rate", &options.disk_rate, NULL, 0, 1ull << 32},
    {"disk_verify", &options.disk_verify, NULL, 0, 1},
    {"net", &options.net, nets, 0, 0},
    {"net_rate", &options.net_rate, NULL, 0, 100000},
    {"irq", &options.irq, NULL, 0, 1},
    {"report_ms", &options.report_ms, NULL, 10, 86400000},
    {"run_ms", &options.run_ms, NULL, 0, 1ull << 40},
    {"exit", &options.exit, exits, 0, 0},
};

static bool apply(char* word) {
    char* equals = word;
    while (*equals != '=' && *equals != '\0') {
        ++equals;
    }
    if (*equals == '\0') {
        return false;
    }
    *equals = '\0';
    bool understood = false;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; ++i) {
        if (same_text(table[i].key, word)) {
            understood = number_option_set(&table[i], equals + 1);
            break;
        }
    }
    *equals = '=';
    return understood;
}

const char* options_parse(const char* line) {
    static char word[word_bytes_max];
    for (;;) {
        while (*line == ' ' || *line == '\n' || *line == '\t') {
            ++line;
        }
        if (*line == '\0') {
            break;
        }
        size_t length = 0;
        while (*line != ' ' && *line != '\n' && *line != '\t' && *line != '\0') {
            if (length == sizeof word - 1) {
                return word;
            }
            word[length++] = *line++;
            word[length] = '\0';
        }
        if (!apply(word)) {
            return word;
        }
    }
    if (options.disk_block_bytes % 512 != 0) {
        return "disk_block must be a multiple of 512";
    }
    return NULL;
}
