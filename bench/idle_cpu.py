#!/usr/bin/env python3
"""CPU time the monitor of an idle guest takes from the host, against QEMU.

beacon without any load looks at its serial port every 100 ms and otherwise sleeps: that is the guest's own timer.
The run time of every thread (/proc/PID/task/*/schedstat, nanoseconds) and its voluntary switches are read twice, so
many seconds apart. With --lab a stock Linux guest idles on a lab host instead.

    bench/idle_cpu.py [--seconds 10] [--runs 3] [--lab] [--save]
"""

import sys
import time
from pathlib import Path

import measuring
import vmms

_LAB_GUEST = Path("/lab/guest")
_SETTLE_S = 3


def used(pid):
    """(nanoseconds on a CPU, voluntary switches) of a process, all threads."""
    nanoseconds = switches = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        nanoseconds += int((task / "schedstat").read_text().split()[0])
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                switches += int(line.split()[1])
    return nanoseconds, switches


def measure(make, guest, ready, seconds):
    with make(guest) as machine:
        machine.serial.wait_bytes(ready)
        time.sleep(_SETTLE_S)  # what a start still does is not part of idling
        before, began = used(machine.process.pid), time.monotonic()
        time.sleep(seconds)
        after, ended = used(machine.process.pid), time.monotonic()
    return [(after[0] - before[0]) / 1e7 / (ended - began), (after[1] - before[1]) / (ended - began)]


SUBJECTS = {"godwit-vmm": vmms.Godwit, "qemu q35": lambda guest: vmms.Qemu(guest, "q35"),
            "qemu microvm": lambda guest: vmms.Qemu(guest, "microvm")}


def main():
    parser = measuring.options(__doc__.split("\n", maxsplit=1)[0], 3, lab=True)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--only", choices=sorted(SUBJECTS), action="append", help="measure only this; repeatable")
    arguments = parser.parse_args()
    if arguments.lab:
        import lab_run
        words = ["--runs", str(arguments.runs), "--seconds", str(arguments.seconds)]
        words += [word for name in arguments.only or [] for word in ("--only", name)]
        return lab_run.run("idle_cpu.py", words, arguments.save)
    guest, ready = vmms.Guest("report_ms=86400000"), b'"event":"boot"'
    if _LAB_GUEST.exists():
        from kernel_boot import _COMMAND_LINE
        guest = vmms.Guest(_COMMAND_LINE.replace("lab=off", "lab=idle"), kernel=_LAB_GUEST / "vmlinux",
                           initrd=_LAB_GUEST / "initramfs.cpio")
        ready = b"GODWIT-GUEST-READY"
    result, rows = {}, []
    for name in arguments.only or SUBJECTS:
        values = [measure(SUBJECTS[name], guest, ready, arguments.seconds) for _ in range(arguments.runs)]
        percent, switches = (measuring.summary([one[index] for one in values]) for index in range(2))
        result[name] = {"percent_of_a_cpu": percent, "wakeups_per_s": switches}
        rows.append([name, percent["median"], percent["max"], switches["median"]])
    measuring.table("an idle guest", ["", "% of a CPU", "max", "wake-ups/s"], rows)
    measuring.finish("idle_cpu", {"subjects": result}, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
