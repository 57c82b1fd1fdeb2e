#include "report.h"

#include "acpi.h"
#include "apic.h"
#include "clock.h"
#include "cpu.h"
#include "events.h"
#include "heartbeat.h"
#include "journal.h"
#include "memory.h"
#include "options.h"
#include "ram.h"
#include "vcpu.h"
#include "virtio.h"
#include "virtio_blk.h"
#include "virtio_net.h"

extern const uint8_t build_id_note[]; // ELF note: three words, "GNU", the id

static void write_build_id(void) {
    char text[41];
    uint32_t bytes = build_id_note[4] < 20 ? build_id_note[4] : 20;
    for (uint32_t i = 0; i < bytes; ++i) {
        text[2 * i] = "0123456789abcdef"[build_id_note[16 + i] >> 4];
        text[2 * i + 1] = "0123456789abcdef"[build_id_note[16 + i] & 15];
    }
    text[2 * bytes] = '\0';
    event_text("build_id", text);
}

static void write_mac(void) {
    char text[18];
    for (uint32_t i = 0; i < 6; ++i) {
        text[3 * i] = "0123456789abcdef"[net_mac()[i] >> 4];
        text[3 * i + 1] = "0123456789abcdef"[net_mac()[i] & 15];
        text[3 * i + 2] = i < 5 ? ':' : '\0';
    }
    event_text("mac", text);
}

void report_boot(void) {
    event_begin("boot");
    event_text("version", BEACON_VERSION);
    write_build_id();
    event_number("boot_us", clock_us(tsc_read()));
    event_number("cpus", vcpu_count);
    event_number("cpus_present", acpi.cpu_count);
    event_number("ram_bytes", ram_bytes());
    event_number("pages", working_set_pages());
    event_number("tsc_khz", clock_tsc_khz());
    event_text("tsc_source", clock_tsc_source());
    event_flag("kvmclock", clock_has_kvmclock());
    event_text("registers", options.sse != 0 ? registers_kind() : "none");
    if (options.disk != 0) {
        event_open_object("disk");
        event_number("bytes", block_capacity_bytes());
        event_number("blocks", journal_blocks());
        event_hex("run", journal_run_id());
        event_flag("flush", block_has_flush());
        event_flag("irq", block_queue()->vector != 0);
        event_flag("event_index", block_queue()->event_index);
        event_close_object();
    }
    if (options.net != 0) {
        event_open_object("net");
        write_mac();
        event_flag("irq", net_receive_queue()->vector != 0);
        event_close_object();
    }
    event_text("command_line", command_line);
    event_end();
}

static void write_cpus(void) {
    event_open_list("cpus");
    for (uint32_t i = 0; i < vcpu_count; ++i) {
        const struct vcpu* vcpu = &vcpus[i];
        struct gap widest = gaps_widest(&vcpu->gaps);
        event_open_object(0);
        event_number("id", i);
        event_number("writes", vcpu->memory.writes);
        event_number("pages_checked", vcpu->memory.checked);
        event_number("errors", vcpu->memory.errors);
        event_number("max_gap_us", widest.us);
        event_number("max_gap_at_us", widest.at_us);
        event_number("max_gap_us_total", vcpu->gaps.widest_total.us);
        event_number("timer_ticks", irq_counts[VECTOR_TIMER + i]);
        event_close_object();
    }
    event_close_list();
}

// The widest gaps of all CPUs since the last reset, widest first.
static void write_gaps(void) {
    event_open_list("gaps");
    bool written[CPU_LIMIT][gaps_kept] = {{false}};
    for (uint32_t rank = 0; rank < gaps_kept; ++rank) {
        struct gap best = {0};
        uint32_t best_cpu = 0, best_entry = 0;
        for (uint32_t cpu = 0; cpu < vcpu_count; ++cpu) {
            for (uint32_t entry = 0; entry < gaps_kept; ++entry) {
                struct gap gap = vcpus[cpu].gaps.widest[entry];
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
        event_open_object(0);
        event_number("cpu", best_cpu);
        event_number("us", best.us);
        event_number("at_us", best.at_us);
        event_close_object();
    }
    event_close_list();
}

static void write_disk(void) {
    const struct journal_counts* counts = &journal_counts;
    event_open_object("disk");
    event_number("writes", counts->writes);
    event_number("reads", counts->reads);
    event_number("flushes", counts->flushes);
    event_number("verified", counts->verified);
    event_number("errors", counts->errors);
    event_number("inflight", counts->in_flight);
    event_number("max_latency_us", counts->latency_max_us);
    event_number("newest_acknowledged", counts->newest_acknowledged);
    event_number("flushed", counts->flushed);
    event_number("blocks_written", counts->blocks_written);
    event_hex("run", journal_run_id());
    event_close_object();
}

static void write_net(void) {
    const struct heartbeat_counts* counts = &heartbeat_counts;
    event_open_object("net");
    event_number("tx", counts->sent);
    event_number("rx", counts->received);
    event_number("lost", counts->lost);
    event_number("doubled", counts->doubled);
    event_number("reordered", counts->reordered);
    event_number("errors", counts->corrupt);
    event_number("echoed", counts->echoed);
    event_number("not_sent", counts->not_sent);
    event_close_object();
}

static void write_clock(void) {
    uint64_t tsc_backwards = 0, kvmclock_backwards = 0;
    int64_t ahead_min = 0, ahead_max = 0;
    for (uint32_t i = 0; i < vcpu_count; ++i) {
        const struct clock_checks* checks = &vcpus[i].clock;
        tsc_backwards += checks->tsc_backwards;
        kvmclock_backwards += checks->kvmclock_backwards;
        if (checks->kvmclock_ahead_min_ns < ahead_min) {
            ahead_min = checks->kvmclock_ahead_min_ns;
        }
        if (checks->kvmclock_ahead_max_ns > ahead_max) {
            ahead_max = checks->kvmclock_ahead_max_ns;
        }
    }
    event_open_object("clock");
    event_number("tsc_backwards", tsc_backwards);
    event_number("kvmclock_backwards", kvmclock_backwards);
    event_signed("kvmclock_ahead_min_ns", ahead_min);
    event_signed("kvmclock_ahead_max_ns", ahead_max);
    event_close_object();
}

static void write_registers(void) {
    uint64_t checks = 0, errors = 0;
    for (uint32_t i = 0; i < vcpu_count; ++i) {
        checks += vcpus[i].registers.checks;
        errors += vcpus[i].registers.errors;
    }
    event_open_object("sse");
    event_number("checks", checks);
    event_number("errors", errors);
    event_close_object();
}

static void write_interrupts(const char* name, const struct virtio_queue* queue) {
    event_open_object(name);
    event_number("count", queue->vector != 0 ? irq_counts[queue->vector] : 0);
    event_number("lost", queue->lost_interrupts);
    event_close_object();
}

static uint64_t pages_verified(void) {
    uint64_t pages = 0;
    for (uint32_t i = 0; i < vcpu_count; ++i) {
        pages += vcpus[i].memory.verify_cursor;
    }
    return pages;
}

void report_write(enum report_kind kind) {
    static const char* const names[] = {"report", "verified", "final"};
    event_begin(names[kind]);
    event_number("guest_us", clock_us(tsc_read()));
    write_cpus();
    write_gaps();
    if (options.disk != 0) {
        write_disk();
    }
    if (options.net != 0) {
        write_net();
    }
    write_clock();
    write_registers();
    event_open_object("irq");
    if (options.disk != 0) {
        write_interrupts("disk", block_queue());
    }
    if (options.net != 0) {
        write_interrupts("net", net_receive_queue());
    }
    event_close_object();
    if (kind != report_regular) {
        event_number("pages_verified", pages_verified());
        event_number("blocks_verified", options.disk != 0 ? journal_counts.blocks_written : 0);
        event_flag("ok", errors_total() == 0);
    }
    event_number("errors", errors_total());
    event_end();
}
