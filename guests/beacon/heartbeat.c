#include "heartbeat.h"

#include "clock.h"
#include "cpu.h"
#include "events.h"
#include "memload.h"
#include "memory.h"
#include "options.h"
#include "virtio.h"
#include "virtio_net.h"

#include <stddef.h>

#define FRAME_MAGIC 0x42485747u // "GWHB" in memory

enum {
    ethertype_high = 0x88,
    ethertype_low = 0xb5,
    frame_bytes_min = 60,
    window = 64, // how far behind the newest a late frame is still told from a doubled one
    polling_us = 1000,
};

enum frame_type { frame_heartbeat = 1, frame_echo_request = 2, frame_echo_reply = 3 };

struct frame {
    uint8_t destination[6], source[6], ethertype[2];
    uint32_t magic;
    uint32_t type;
    uint64_t sequence;
    uint64_t time_us;
    uint32_t check; // FNV-1a of magic..time_us
} __attribute__((packed));

struct heartbeat_counts heartbeat_counts;

static bool running;
static uint64_t next_send_tsc, tsc_per_frame;
static uint64_t next_sequence = 1;
static bool peer_known;
static uint8_t peer[6];
static uint64_t peer_newest;
static uint64_t peer_seen; // bit n: newest - n was received

bool heartbeat_start(void) {
    running = net_open(options.irq != 0);
    if (options.net_rate != 0) {
        tsc_per_frame = clock_tsc_khz() * 1000 / options.net_rate;
    }
    return running;
}

static uint32_t check_of(const struct frame* frame) {
    return fnv1a32(&frame->magic, offsetof(struct frame, check) - offsetof(struct frame, magic));
}

static bool
send(const uint8_t* destination, enum frame_type type, uint64_t sequence, uint64_t now) {
    uint8_t bytes[frame_bytes_min] = {0};
    struct frame* frame = (struct frame*)bytes;
    memcpy(frame->destination, destination, sizeof frame->destination);
    memcpy(frame->source, net_mac(), sizeof frame->source);
    frame->ethertype[0] = ethertype_high;
    frame->ethertype[1] = ethertype_low;
    frame->magic = FRAME_MAGIC;
    frame->type = type;
    frame->sequence = sequence;
    frame->time_us = clock_us(now);
    frame->check = check_of(frame);
    bool sent = net_send(bytes, sizeof bytes);
    heartbeat_counts.sent += sent;
    heartbeat_counts.not_sent += !sent;
    return sent;
}

static void account(uint64_t sequence) {
    ++heartbeat_counts.received;
    if (sequence > peer_newest) {
        uint64_t step = sequence - peer_newest;
        heartbeat_counts.lost += step - 1;
        peer_seen = step < window ? peer_seen << step | 1 : 1;
        peer_newest = sequence;
        return;
    }
    uint64_t behind = peer_newest - sequence;
    if (behind < window && (peer_seen >> behind & 1) == 0) {
        peer_seen |= 1ull << behind;
        ++heartbeat_counts.reordered;
        --heartbeat_counts.lost;
        return;
    }
    ++heartbeat_counts.doubled;
}

static void received(const uint8_t* bytes, uint32_t count) {
    const struct frame* frame = (const struct frame*)bytes;
    if (count < sizeof *frame || frame->ethertype[0] != ethertype_high ||
        frame->ethertype[1] != ethertype_low ||
        memcmp(frame->source, net_mac(), sizeof frame->source) == 0) {
        return;
    }
    if (frame->magic != FRAME_MAGIC || frame->check != check_of(frame)) {
        ++heartbeat_counts.corrupt;
        if (error_begin("frame")) {
            event_number("bytes", count);
            event_number("sequence", frame->sequence);
            event_hex("check", frame->check);
            event_end();
        }
        return;
    }
    if (frame->type == frame_echo_request) {
        heartbeat_counts.echoed +=
            send(frame->source, frame_echo_reply, frame->sequence, tsc_read());
        return;
    }
    if (frame->type != frame_heartbeat) {
        return;
    }
    if (!peer_known) {
        memcpy(peer, frame->source, sizeof peer);
        peer_known = true;
        peer_newest = frame->sequence - 1;
        peer_seen = UINT64_MAX; // nothing before the first frame counts as lost
    }
    if (memcmp(peer, frame->source, sizeof peer) == 0) {
        account(frame->sequence);
    }
}

uint64_t heartbeat_step(uint64_t now) {
    if (!running) {
        return NEVER;
    }
    net_receive(now, received);
    uint64_t due = NEVER;
    if (tsc_per_frame != 0) {
        if (next_send_tsc <= now) {
            static const uint8_t everyone[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
            next_sequence += send(everyone, frame_heartbeat, next_sequence, now);
            next_send_tsc += tsc_per_frame;
            if (next_send_tsc < now) {
                next_send_tsc = now + tsc_per_frame; // what a pause made late is left out
            }
        }
        due = next_send_tsc;
    }
    if (net_receive_queue()->vector == 0) {
        uint64_t look = now + clock_us_to_tsc(polling_us);
        due = look < due ? look : due;
    }
    return due;
}

void heartbeat_stop(void) {
    running = false;
}
