// The network load: datagrams with a sequence to the host, and an account of those that come back.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct heartbeat_counts {
    uint64_t sent, received, lost, doubled, reordered, corrupt, echoed, not_sent;
};

// Opens the socket and starts the thread. On failure says why.
bool heartbeat_start(const char** reason);
bool heartbeat_running(void);
struct heartbeat_counts heartbeat_counts(void);
// Sends nothing more; what comes is still counted.
void heartbeat_stop(void);
