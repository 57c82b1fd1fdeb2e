// The disk load: every block carries its number and sequence; the newest acknowledged write of each
// block is known here and compared with what is read back. One thread per request in flight.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct journal_counts {
    uint64_t writes, reads, flushes, verified, errors, in_flight;
    uint64_t latency_max_us;
    uint64_t newest_acknowledged; // sequence
    uint64_t flushed;             // every write up to this sequence is durable
    uint64_t blocks_written;      // blocks whose content is known
};

// Opens the disk and starts the threads. On failure says why.
bool journal_start(const char** reason);
bool journal_has_disk(void);
uint64_t journal_run_id(void);
uint64_t journal_blocks(void);
uint64_t journal_disk_bytes(void);
struct journal_counts journal_counts(void);

// Stops the load, flushes, reads every written block back. `done_fd` is an eventfd told at the end.
void journal_verify_begin(int done_fd);
bool journal_verify_done(void);
// Lets the load go on.
void journal_verify_end(void);
