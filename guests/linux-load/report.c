#include "report.h"

#include "events.h"
#include "heartbeat.h"
#include "journal.h"
#include "options.h"
#include "worker.h"

#include <sys/utsname.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

void report_boot(int count, char** words) {
    struct utsname names;
    uname(&names);
    event_begin("boot");
    event_text("version", "linux-1");
    event_text("kernel", names.release);
    event_number("cpus", worker_count);
    event_number("ram_bytes", (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE));
    event_number("pages", memory_load_pages());
    event_text("clock_source", clocks_source());
    event_text("registers", options.vectors != 0 ? registers_kind() : "none");
    if (journal_has_disk()) {
        event_open_object("disk");
        event_number("bytes", journal_disk_bytes());
        event_number("blocks", journal_blocks());
        event_hex("run", journal_run_id());
        event_close_object();
    }
    char line[1024] = "";
    for (int i = 0; i < count; ++i) {
        size_t used = strlen(line);
        snprintf(line + used, sizeof line - used, "%s%s", i == 0 ? "" : " ", words[i]);
    }
    event_text("command_line", line);
    event_end();
}

static void write_cpus(void) {
    event_open_list("cpus");
    for (uint32_t i = 0; i < worker_count; ++i) {
        const struct worker* worker = &workers[i];
        struct gap widest = gap_widest(&worker->clock);
        event_open_object(NULL);
        event_number("id", i);
        event_number("turns", atomic_load(&worker->turns));
        event_number("writes", atomic_load(&worker->memory.writes));
        event_number("pages_checked", atomic_load(&worker->memory.checked));
        event_number("errors", atomic_load(&worker->memory.errors));
        event_number("max_gap_us", widest.us);
        event_number("max_gap_at_us", widest.at_us);
        event_number("max_gap_us_total", worker->clock.widest_total.us);
        event_close_object();
    }
    event_close_list();
}

// The widest gaps of all CPUs since the last reset, widest first.
static void write_gaps(void) {
    event_open_list("gaps");
    bool written[cpus_max][gaps_kept] = {{false}};
    for (uint32_t rank = 0; rank < gaps_kept; ++rank) {
        struct gap best = {0};
        uint32_t best_cpu = 0, best_entry = 0;
        for (uint32_t cpu = 0; cpu < worker_count; ++cpu) {
            for (uint32_t entry = 0; entry < gaps_kept; ++entry) {
                struct gap gap = workers[cpu].clock.widest[entry];
                if (!written[cpu][entry] && gap.us > best.us) {
                    best = gap;
                    best_cpu = cpu;
                    best_entry = entry;
                }
            }
        }
        if (best.us == 0) {
            break;
        }
        written[best_cpu][best_entry] = true;
        event_open_object(NULL);
        event_number("cpu", best_cpu);
        event_number("us", best.us);
        event_number("at_us", best.at_us);
        event_close_object();
    }
    event_close_list();
}

static void write_disk(void) {
    struct journal_counts counts = journal_counts();
    event_open_object("disk");
    event_number("writes", counts.writes);
    event_number("reads", counts.reads);
    event_number("flushes", counts.flushes);
    event_number("verified", counts.verified);
    event_number("errors", counts.errors);
    event_number("inflight", counts.in_flight);
    event_number("max_latency_us", counts.latency_max_us);
    event_number("newest_acknowledged", counts.newest_acknowledged);
    event_number("flushed", counts.flushed);
    event_number("blocks_written", counts.blocks_written);
    event_hex("run", journal_run_id());
    event_close_object();
}

static void write_net(void) {
    struct heartbeat_counts counts = heartbeat_counts();
    event_open_object("net");
    event_number("tx", counts.sent);
    event_number("rx", counts.received);
    event_number("lost", counts.lost);
    event_number("doubled", counts.doubled);
    event_number("reordered", counts.reordered);
    event_number("errors", counts.corrupt);
    event_number("echoed", counts.echoed);
    event_number("not_sent", counts.not_sent);
    event_close_object();
}

static void write_checks(void) {
    uint64_t readings = 0, backwards = 0, checks = 0, errors = 0;
    for (uint32_t i = 0; i < worker_count; ++i) {
        readings += atomic_load(&workers[i].clock.readings);
        backwards += atomic_load(&workers[i].clock.backwards);
        checks += atomic_load(&workers[i].registers.checks);
        errors += atomic_load(&workers[i].registers.errors);
    }
    event_open_object("clock");
    event_number("readings", readings);
    event_number("backwards", backwards);
    event_close_object();
    event_open_object("sse");
    event_number("checks", checks);
    event_number("errors", errors);
    event_close_object();
}

static uint64_t pages_verified(void) {
    uint64_t pages = 0;
    for (uint32_t i = 0; i < worker_count; ++i) {
        pages += atomic_load(&workers[i].memory.verified);
    }
    return pages;
}

void report_write(const char* event) {
    event_begin(event);
    event_number("guest_us", clocks_since_start_us());
    write_cpus();
    write_gaps();
    if (journal_has_disk()) {
        write_disk();
    }
    if (heartbeat_running()) {
        write_net();
    }
    write_checks();
    if (strcmp(event, "report") != 0) {
        event_number("pages_verified", pages_verified());
        event_number("blocks_verified", journal_has_disk() ? journal_counts().blocks_written : 0);
        event_flag("ok", errors_total() == 0);
    }
    event_number("errors", errors_total());
    event_end();
}
