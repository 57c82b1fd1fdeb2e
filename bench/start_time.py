#!/usr/bin/env python3
"""From the start of the monitor's process to the guest's first instruction, against QEMU.

The guest is beacon, whose first instructions write the byte B to the serial port. The time is from just before
the process is made to the arrival of that byte here, so it includes fork, exec, and everything the monitor does.
The monitors take turns within every round, in an order that rotates.

    bench/start_time.py [--runs 30] [--lab] [--memory MIB] [--save]
"""

import sys

import measuring
import vmms


def godwit(guest):
    with vmms.Godwit(guest) as machine:
        first = machine.serial.wait_bytes(b"B")
        return (first - machine.started) * 1000


def qemu(kind):
    def measure(guest):
        with vmms.Qemu(guest, kind) as machine:
            try:
                first = machine.serial.wait_bytes(b"B", 20)
            except vmms.Failed as error:
                raise vmms.Failed(f"{error} {machine.complaint()}") from error
            return (first - machine.started) * 1000
    return measure


SUBJECTS = {"godwit-vmm": godwit, "qemu q35": qemu("q35"), "qemu microvm": qemu("microvm")}


def main():
    parser = measuring.options(__doc__.split("\n", maxsplit=1)[0], 30, lab=True)
    parser.add_argument("--memory", type=int, default=256, help="MiB of guest memory (default 256)")
    parser.add_argument("--only", choices=sorted(SUBJECTS), action="append", help="measure only this; repeatable")
    arguments = parser.parse_args()
    if arguments.lab:
        import lab_run
        words = ["--runs", str(arguments.runs), "--memory", str(arguments.memory)]
        words += [word for name in arguments.only or [] for word in ("--only", name)]
        return lab_run.run("start_time.py", words, arguments.save)
    guest = vmms.Guest("report_ms=86400000", memory_mib=arguments.memory)
    names = list(arguments.only or SUBJECTS)
    times = {name: [] for name in names}
    for name in names:
        SUBJECTS[name](guest)  # warms the page cache; not counted
    for number in range(arguments.runs):
        for offset in range(len(names)):
            name = names[(number + offset) % len(names)]
            times[name].append(SUBJECTS[name](guest))
    result = {name: measuring.summary(values) for name, values in times.items()}
    rows = [[name, one["median"], one["min"], one["max"], one["n"]] for name, one in result.items()]
    measuring.table("process start to first guest instruction, ms", ["", "median", "min", "max", "n"], rows)
    document = {"unit": "ms", "memory_mib": arguments.memory, "subjects": result}
    rivals = [one["median"] for name, one in result.items() if name.startswith("qemu")]
    if rivals and "godwit-vmm" in result:
        document["ratio"] = round(result["godwit-vmm"]["median"] / min(rivals), 4)
        print(f"\ngodwit-vmm / quicker QEMU: {document['ratio']:.3f} (promise: at most 0.5)")
    measuring.finish("start_time", document, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
