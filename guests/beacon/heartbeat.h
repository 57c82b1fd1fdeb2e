// Ethernet frames that prove what the network lost, doubled or changed (README.md, "Frames"): sends
// numbered heartbeats, checks those of one peer, answers echo requests. First CPU only.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct heartbeat_counts {
    uint64_t sent, received, lost, doubled, reordered, corrupt, echoed;
    uint64_t not_sent; // every transmit buffer was busy
};

extern struct heartbeat_counts heartbeat_counts;

bool heartbeat_start(void);

// Sends what is due and looks at what came. Returns the TSC when it wants to be called again.
uint64_t heartbeat_step(uint64_t now);
void heartbeat_stop(void);
