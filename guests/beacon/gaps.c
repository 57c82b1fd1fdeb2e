#include "gaps.h"

#include "clock.h"

static struct gap* narrowest(struct gaps* gaps) {
    struct gap* found = &gaps->widest[0];
    for (uint32_t i = 1; i < gaps_kept; ++i) {
        if (gaps->widest[i].us < found->us) {
            found = &gaps->widest[i];
        }
    }
    return found;
}

void gaps_start(struct gaps* gaps, uint64_t now) {
    gaps->expected_tsc = now;
}

static void reset(struct gaps* gaps) {
    for (uint32_t i = 0; i < gaps_kept; ++i) {
        gaps->widest[i] = (struct gap){0};
    }
    gaps->floor_tsc = 0;
    gaps->reset_requested = false;
}

void gaps_turn(struct gaps* gaps, uint64_t now) {
    if (gaps->reset_requested) {
        reset(gaps);
    } else if (now > gaps->expected_tsc && now - gaps->expected_tsc > gaps->floor_tsc) {
        struct gap gap = {clock_tsc_to_us(now - gaps->expected_tsc), clock_us(now)};
        *narrowest(gaps) = gap;
        // One microsecond more than the narrowest: rounding must not let equal gaps in for ever.
        gaps->floor_tsc = clock_us_to_tsc(narrowest(gaps)->us + 1);
        if (gap.us > gaps->widest_total.us) {
            gaps->widest_total = gap;
        }
    }
    gaps->expected_tsc = now;
}

void gaps_after_halt(struct gaps* gaps, uint64_t deadline, uint64_t now) {
    gaps->expected_tsc = now < deadline ? now : deadline;
}

struct gap gaps_widest(const struct gaps* gaps) {
    struct gap widest = gaps->widest[0];
    for (uint32_t i = 1; i < gaps_kept; ++i) {
        if (gaps->widest[i].us > widest.us) {
            widest = gaps->widest[i];
        }
    }
    return widest;
}
