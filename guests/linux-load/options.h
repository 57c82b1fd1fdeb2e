// What the command line asks for. Words are `key=value`, as beacon's.
#pragma once

#include <stdint.h>

enum pattern { pattern_seq, pattern_random, pattern_hot, pattern_mixed };

enum { cpus_max = 64, disk_threads_max = 64, block_bytes_max = 65536, path_bytes_max = 128 };

struct options {
    uint64_t cpus; // 0: all that are online
    uint64_t mem_set_bytes, mem_rate, mem_pattern;
    uint64_t vectors; // 1: hold values in vector registers
    uint64_t tick_us;
    char disk[path_bytes_max]; // empty: none
    uint64_t disk_pattern, disk_qd, disk_block_bytes, disk_flush, disk_span_bytes, disk_rate;
    uint64_t disk_verify;
    char net[path_bytes_max]; // "address" or "address:port" of the host; empty: none
    uint64_t net_rate;
    char out[path_bytes_max]; // a terminal for lines and control; empty: standard input and output
    uint64_t report_ms, run_ms;
};

extern struct options options;

// Reads the words; returns the first one that is not understood, or null.
const char* options_parse(int count, char** words);
