// guestload: the load and the oracle inside a stock Linux guest. README.md says what it checks.
#include "clocks.h"
#include "events.h"
#include "heartbeat.h"
#include "journal.h"
#include "options.h"
#include "report.h"
#include "worker.h"

#include <sys/eventfd.h>
#include <sys/mman.h>

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

enum { command_bytes_max = 64 };

static int terminal_in = STDIN_FILENO;
static int done_fd = -1; // eventfd: some part of a verification is done
static bool verifying, stopping, final_verification, populated_said, input_open = true;
static char command[command_bytes_max];
static size_t command_length;

// Bytes as they are: no echo, no line editing, no translation of newlines.
static void make_raw(int fd) {
    struct termios settings;
    if (tcgetattr(fd, &settings) == 0) {
        cfmakeraw(&settings);
        tcsetattr(fd, TCSANOW, &settings);
    }
}

static bool open_terminal(void) {
    if (options.out[0] != '\0') {
        int fd = open(options.out, O_RDWR | O_NOCTTY | O_CLOEXEC);
        if (fd < 0) {
            return false;
        }
        terminal_in = fd;
        events_open(fd);
    }
    make_raw(terminal_in);
    return true;
}

static void verify_begin(void) {
    if (verifying) {
        return;
    }
    verifying = true;
    if (journal_has_disk()) {
        journal_verify_begin(done_fd);
    }
    workers_verify(done_fd);
}

static void stop_begin(void) {
    if (stopping) {
        return;
    }
    stopping = true;
    heartbeat_stop();
    workers_stop_load();
    if (!verifying) {
        final_verification = true;
        verify_begin();
    }
}

static void reset_gaps(void) {
    for (uint32_t i = 0; i < worker_count; ++i) {
        atomic_store(&workers[i].clock.reset_requested, true);
    }
    event_begin("gaps-reset");
    event_number("guest_us", clocks_since_start_us());
    event_end();
}

static void obey(void) {
    if (strcmp(command, "report") == 0) {
        report_write("report");
    } else if (strcmp(command, "reset-gaps") == 0) {
        reset_gaps();
    } else if (strcmp(command, "verify") == 0) {
        verify_begin();
    } else if (strcmp(command, "stop") == 0) {
        stop_begin();
    } else if (command[0] != '\0') {
        event_begin("unknown-command");
        event_text("command", command);
        event_end();
    }
}

static void read_commands(void) {
    char bytes[256];
    ssize_t count = read(terminal_in, bytes, sizeof bytes);
    if (count <= 0) {
        input_open = false; // nobody will ask any more; the load goes on
        return;
    }
    for (ssize_t i = 0; i < count; ++i) {
        if (bytes[i] == '\n' || bytes[i] == '\r') {
            command[command_length] = '\0';
            obey();
            command_length = 0;
        } else if (command_length < command_bytes_max - 1) {
            command[command_length++] = bytes[i];
        }
    }
}

// Returns true once the final line is out.
static bool verify_step(void) {
    if (!verifying || !workers_verified() || !journal_verify_done()) {
        return false;
    }
    verifying = false;
    if (!stopping) {
        journal_verify_end();
        report_write("verified");
        return false;
    }
    // A verification that was under way when the load stopped may have missed the last writes.
    if (!final_verification) {
        final_verification = true;
        verify_begin();
        return false;
    }
    report_write("final");
    return true;
}

static void say_populated(void) {
    uint64_t pages = 0;
    for (uint32_t i = 0; i < worker_count; ++i) {
        pages += atomic_load(&workers[i].memory.populated);
    }
    if (!populated_said && pages == memory_load_pages()) {
        populated_said = true;
        event_begin("populated");
        event_number("guest_us", clocks_since_start_us());
        event_number("pages", pages);
        event_end();
    }
}

static void control(void) {
    uint64_t next_report_us = options.report_ms * 1000;
    uint64_t stop_us = options.run_ms == 0 ? UINT64_MAX : options.run_ms * 1000;
    for (;;) {
        uint64_t now_us = clocks_since_start_us();
        if (now_us >= stop_us) {
            stop_us = UINT64_MAX;
            stop_begin();
        }
        if (now_us >= next_report_us) {
            say_populated();
            report_write("report");
            next_report_us = now_us + options.report_ms * 1000;
        }
        uint64_t wake_us = stop_us < next_report_us ? stop_us : next_report_us;
        int wait_ms = (int)((wake_us - now_us + 999) / 1000);
        struct pollfd ready[] = {{.fd = done_fd, .events = POLLIN},
                                 {.fd = terminal_in, .events = POLLIN}};
        poll(ready, input_open ? 2 : 1, wait_ms > 0 ? wait_ms : 0);
        uint64_t count;
        if ((ready[0].revents & POLLIN) != 0 && read(done_fd, &count, sizeof count) > 0 &&
            verify_step()) {
            return;
        }
        if (input_open && ready[1].revents != 0) {
            read_commands();
        }
    }
}

static int refuse(const char* reason, const char* detail) {
    if (error_begin("refused")) {
        event_text("reason", reason);
        event_text("detail", detail);
        event_end();
    }
    return 2;
}

int main(int count, char** words) {
    clocks_start();
    const char* misunderstood = options_parse(count - 1, words + 1);
    if (misunderstood != NULL) {
        return refuse("option not understood", misunderstood);
    }
    if (!open_terminal()) {
        return refuse("out: cannot be opened", options.out);
    }
    done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    const char* reason = "mem_set: not enough memory";
    if (!memory_load_prepare(options.mem_set_bytes) || !heartbeat_start(&reason) ||
        !journal_start(&reason)) {
        return refuse(reason, "");
    }
    if (!workers_start()) {
        return refuse("cpus: more than are online", "");
    }
    report_boot(count - 1, words + 1);
    control();
    tcdrain(terminal_in);
    return errors_total() == 0 ? 0 : 1;
}
