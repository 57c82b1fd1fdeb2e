#define _GNU_SOURCE // ppoll
#include "heartbeat.h"

#include "clocks.h"
#include "events.h"
#include "hash.h"
#include "options.h"

#include <sys/socket.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define FRAME_MAGIC 0x42485747u // "GWHB" in memory

enum {
    default_port = 7735,
    window = 64, // how far behind the newest a late one is still told from a doubled one
    idle_ms = 1000,
};

enum frame_type { frame_heartbeat = 1, frame_echo_request = 2, frame_echo_reply = 3 };

struct frame { // the same as beacon's, without the Ethernet header
    uint32_t magic, type;
    uint64_t sequence, time_us;
    uint32_t check; // FNV-1a of what stands before
} __attribute__((packed));

static int network = -1;
static struct sockaddr_in host;
static atomic_bool stopping;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // of `counts`
static struct heartbeat_counts counts;
static uint64_t next_sequence = 1;
static bool peer_known;
static uint64_t peer_newest, peer_seen; // bit n of peer_seen: newest - n was received

bool heartbeat_running(void) {
    return network >= 0;
}

struct heartbeat_counts heartbeat_counts(void) {
    pthread_mutex_lock(&lock);
    struct heartbeat_counts copy = counts;
    pthread_mutex_unlock(&lock);
    return copy;
}

void heartbeat_stop(void) {
    atomic_store(&stopping, true);
}

static bool send_frame(const struct sockaddr_in* to, enum frame_type type, uint64_t sequence) {
    struct frame frame = {FRAME_MAGIC, type, sequence, clocks_since_start_us(), 0};
    frame.check = fnv1a32(&frame, offsetof(struct frame, check));
    bool sent =
        sendto(
            network, &frame, sizeof frame, MSG_DONTWAIT, (const struct sockaddr*)to, sizeof *to) ==
        (ssize_t)sizeof frame;
    counts.sent += sent;
    counts.not_sent += !sent;
    return sent;
}

static void account(uint64_t sequence) {
    ++counts.received;
    if (!peer_known) { // nothing before the first one counts as lost
        peer_known = true;
        peer_newest = sequence - 1;
        peer_seen = UINT64_MAX;
    }
    if (sequence > peer_newest) {
        uint64_t step = sequence - peer_newest;
        counts.lost += step - 1;
        peer_seen = step < window ? peer_seen << step | 1 : 1;
        peer_newest = sequence;
        return;
    }
    uint64_t behind = peer_newest - sequence;
    if (behind < window && (peer_seen >> behind & 1) == 0) {
        peer_seen |= 1ull << behind;
        ++counts.reordered;
        --counts.lost;
        return;
    }
    ++counts.doubled;
}

static void take(const struct frame* frame, ssize_t bytes, const struct sockaddr_in* from) {
    if (bytes != (ssize_t)sizeof *frame || frame->magic != FRAME_MAGIC ||
        frame->check != fnv1a32(frame, offsetof(struct frame, check))) {
        ++counts.corrupt;
        if (error_begin("frame")) {
            event_number("bytes", (uint64_t)bytes);
            event_end();
        }
    } else if (frame->type == frame_echo_request) {
        counts.echoed += send_frame(from, frame_echo_reply, frame->sequence);
    } else if (frame->type == frame_heartbeat) {
        account(frame->sequence);
    }
}

static void receive_all(void) {
    for (;;) {
        struct frame frame;
        struct sockaddr_in from;
        socklen_t length = sizeof from;
        ssize_t bytes = recvfrom(network,
                                 &frame,
                                 sizeof frame,
                                 MSG_DONTWAIT | MSG_TRUNC,
                                 (struct sockaddr*)&from,
                                 &length);
        if (bytes < 0) {
            return;
        }
        pthread_mutex_lock(&lock);
        take(&frame, bytes, &from);
        pthread_mutex_unlock(&lock);
    }
}

static void* serve(void* argument) {
    (void)argument;
    uint64_t period_ns = options.net_rate == 0 ? 0 : 1000000000u / options.net_rate;
    uint64_t due_ns = clocks_now_ns();
    for (;;) {
        uint64_t now = clocks_now_ns();
        bool sending = period_ns != 0 && !atomic_load(&stopping);
        if (sending && due_ns <= now) {
            pthread_mutex_lock(&lock);
            next_sequence += send_frame(&host, frame_heartbeat, next_sequence);
            pthread_mutex_unlock(&lock);
            due_ns += period_ns;
            due_ns = due_ns < now ? now + period_ns : due_ns; // what a pause made late is left out
        }
        struct timespec wait = {idle_ms / 1000, 0};
        if (sending) {
            uint64_t left = due_ns > now ? due_ns - now : 0;
            wait = (struct timespec){(time_t)(left / 1000000000u), (long)(left % 1000000000u)};
        }
        struct pollfd ready = {.fd = network, .events = POLLIN};
        ppoll(&ready, 1, &wait, NULL);
        receive_all();
    }
    return NULL;
}

static bool parse_host(void) {
    char address[path_bytes_max];
    strcpy(address, options.net);
    char* colon = strchr(address, ':');
    long port = default_port;
    if (colon != NULL) {
        char* end;
        *colon = '\0';
        port = strtol(colon + 1, &end, 10);
        if (*end != '\0' || port < 1 || port > 65535) {
            return false;
        }
    }
    host = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    return inet_pton(AF_INET, address, &host.sin_addr) == 1;
}

bool heartbeat_start(const char** reason) {
    if (options.net[0] == '\0') {
        return true;
    }
    *reason = "net: not an address such as 10.0.0.1 or 10.0.0.1:7735";
    if (!parse_host()) {
        return false;
    }
    *reason = "net: no socket";
    network = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    // Its own port is the host's too, so that the host can speak first.
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = host.sin_port};
    int shared = 1; // in tests both ends are on one host
    setsockopt(network, SOL_SOCKET, SO_REUSEADDR, &shared, sizeof shared);
    pthread_t thread;
    return network >= 0 && bind(network, (struct sockaddr*)&own, sizeof own) == 0 &&
           pthread_create(&thread, NULL, serve, NULL) == 0;
}
