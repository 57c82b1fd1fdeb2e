#include "control.h"

#include "clock.h"
#include "cpu.h"
#include "events.h"
#include "heartbeat.h"
#include "journal.h"
#include "options.h"
#include "output.h"
#include "power.h"
#include "report.h"
#include "vcpu.h"
#include "virtio.h"
#include "virtio_blk.h"
#include "virtio_net.h"

enum {
    command_bytes_max = 64,
    input_poll_us = 5000,
    input_poll_idle_us = 100000, // with no load at all, so that an idle guest stays idle
};

volatile uint64_t control_verify_epoch;
volatile bool control_stopping;

static bool verifying;
static bool final_verification; // the one under way began after the load had stopped
static bool populated_said;
static uint64_t next_report_tsc, next_input_tsc, stop_tsc;
static char command[command_bytes_max];
static uint32_t command_length;

void control_start(uint64_t now) {
    next_report_tsc = now + clock_us_to_tsc(options.report_ms * 1000);
    next_input_tsc = now;
    stop_tsc = options.run_ms == 0 ? NEVER : now + clock_us_to_tsc(options.run_ms * 1000);
}

static void verify_begin(void) {
    if (verifying) {
        return;
    }
    verifying = true;
    journal_verify_begin();
    ++control_verify_epoch;
    vcpus_wake();
}

static void stop_begin(void) {
    if (control_stopping) {
        return;
    }
    control_stopping = true;
    heartbeat_stop();
    if (!verifying) {
        final_verification = true;
        verify_begin();
    }
}

static void reset_gaps(void) {
    for (uint32_t i = 0; i < vcpu_count; ++i) {
        vcpus[i].gaps.reset_requested = true;
    }
    vcpus_wake();
    event_begin("gaps-reset");
    event_number("guest_us", clock_us(tsc_read()));
    event_end();
}

static bool is_command(const char* name) {
    uint32_t i = 0;
    while (name[i] != '\0' && name[i] == command[i]) {
        ++i;
    }
    return name[i] == '\0' && command[i] == '\0';
}

static void obey(void) {
    if (is_command("report")) {
        report_write(report_regular);
    } else if (is_command("reset-gaps")) {
        reset_gaps();
    } else if (is_command("verify")) {
        verify_begin();
    } else if (is_command("stop")) {
        stop_begin();
    } else if (command_length != 0) {
        event_begin("unknown-command");
        event_text("command", command);
        event_end();
    }
}

static void read_commands(void) {
    int byte;
    while ((byte = output_read()) >= 0) {
        if (byte == '\r') {
            continue;
        }
        if (byte == '\n') {
            command[command_length] = '\0';
            obey();
            command_length = 0;
        } else if (command_length < command_bytes_max - 1) {
            command[command_length++] = (char)byte;
        }
    }
}

static bool memory_verified(void) {
    for (uint32_t i = 0; i < vcpu_count; ++i) {
        if (vcpus[i].verified_epoch != control_verify_epoch) {
            return false;
        }
    }
    return true;
}

static void verify_finish(void) {
    verifying = false;
    if (!control_stopping) {
        journal_verify_end();
        report_write(report_verified);
        return;
    }
    // A verification that was under way when the load stopped may have missed the last writes.
    if (!final_verification) {
        final_verification = true;
        verify_begin();
        return;
    }
    report_write(report_final);
    output_flush();
    power_end();
}

static void check_devices(void) {
    bool dead =
        (options.disk != 0 && block_needs_reset()) || (options.net != 0 && net_needs_reset());
    if (dead && !control_stopping) {
        control_refuse("a virtio device needs reset",
                       options.disk != 0 && block_needs_reset() ? "disk" : "net");
    }
}

static void say_populated(void) {
    if (populated_said || working_set_pages() == 0) {
        return;
    }
    for (uint32_t i = 0; i < vcpu_count; ++i) {
        if (vcpus[i].memory.populated < vcpus[i].memory.count) {
            return;
        }
    }
    populated_said = true;
    event_begin("populated");
    event_number("guest_us", clock_us(tsc_read()));
    event_number("pages", working_set_pages());
    event_end();
}

static uint64_t earlier(uint64_t left, uint64_t right) {
    return left < right ? left : right;
}

uint64_t control_step(uint64_t now) {
    say_populated();
    if (now >= stop_tsc) {
        stop_tsc = NEVER;
        stop_begin();
    }
    if (now >= next_input_tsc) {
        bool idle = working_set_pages() == 0 && options.disk == 0 && options.net == 0;
        next_input_tsc = now + clock_us_to_tsc(idle ? input_poll_idle_us : input_poll_us);
        read_commands();
    }
    if (now >= next_report_tsc) {
        next_report_tsc = now + clock_us_to_tsc(options.report_ms * 1000);
        check_devices();
        if (!control_stopping) {
            report_write(report_regular);
        }
    }
    if (verifying && memory_verified() && journal_verify_done()) {
        verify_finish();
    }
    return earlier(earlier(next_report_tsc, next_input_tsc), stop_tsc);
}

void control_refuse(const char* reason, const char* detail) {
    if (error_begin("refused")) {
        event_text("reason", reason);
        event_text("detail", detail);
        event_end();
    }
    output_flush();
    power_end();
}
