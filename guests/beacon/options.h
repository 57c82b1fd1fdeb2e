// The kernel command line: what load to make, where to print, how to end. README.md lists the keys.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { output_serial = 1, output_virtio = 2 };
enum pattern { pattern_seq, pattern_random, pattern_hot };
enum exit_way { exit_acpi, exit_reboot, exit_halt };

struct options {
    uint64_t cpus;
    uint64_t out;
    uint64_t mem_set_bytes;
    uint64_t mem_rate;
    uint64_t mem_pattern;
    uint64_t sse;
    uint64_t disk;
    uint64_t disk_index;
    uint64_t disk_pattern;
    uint64_t disk_qd;
    uint64_t disk_block_bytes;
    uint64_t disk_flush;
    uint64_t disk_span_bytes;
    uint64_t disk_rate;
    uint64_t disk_verify;
    uint64_t net;
    uint64_t net_rate;
    uint64_t irq;
    uint64_t report_ms;
    uint64_t run_ms;
    uint64_t exit;
};

extern struct options options;

// Fills `options` from `key=value` words. On a word it does not understand returns a copy of that
// word (valid for ever), else null.
const char* options_parse(const char* line);
