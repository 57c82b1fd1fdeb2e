// Where the exception stubs jump to, in ring 3 on a stack of its own: says what happened and ends
// the machine.
#include "clock.h"
#include "cpu.h"
#include "events.h"
#include "output.h"
#include "power.h"

struct panic_record { // filled by exception_common in stubs.S
    uint64_t vector, error, rip, cs, flags, rsp, cr2, cpu;
};

extern volatile struct panic_record panic_record;

_Noreturn void panic_main(void);

_Noreturn void panic_main(void) {
    // Whoever else is writing gets a millisecond to finish its line.
    uint64_t start = tsc_read();
    while (tsc_read() - start < clock_us_to_tsc(1000)) {
        cpu_relax();
    }
    events_break_lock();
    output_break_lock();
    event_begin("panic");
    event_number("guest_us", clock_us(tsc_read()));
    event_number("cpu", panic_record.cpu);
    event_number("vector", panic_record.vector);
    event_hex("error", panic_record.error);
    event_hex("rip", panic_record.rip);
    event_hex("cs", panic_record.cs);
    event_hex("flags", panic_record.flags);
    event_hex("rsp", panic_record.rsp);
    event_hex("cr2", panic_record.cr2);
    event_end();
    output_flush();
    power_end();
}
