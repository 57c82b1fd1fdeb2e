#!/usr/bin/env python3
"""From nothing to the init of a stock Debian kernel, on a frozen lab host, against QEMU there.

The time is from just before the monitor's process is made to the line GODWIT-GUEST-UP, which the first program of
the guest's initramfs prints on the serial port. Kernels: Debian's cloud and amd64 flavours, as ELF (PVH).

    bench/kernel_boot.py [--runs 5] [--save]         (always in the lab)
"""

import sys
from pathlib import Path

import measuring
import vmms

_LAB_GUEST = Path("/lab/guest")
_COMMAND_LINE = ("console=ttyS0 mitigations=off nokaslr tsc=reliable no_timer_check cryptomgr.notests "
                 "random.trust_cpu=on audit=0 apparmor=0 rcupdate.rcu_expedited=1 8250.nr_uarts=1 init_on_alloc=0 "
                 "ipv6.disable=1 initcall_blacklist=cmos_init,i8042_init quiet lab=off")


def boot(make, guest):
    with make(guest) as machine:
        up = machine.serial.wait_bytes(b"GODWIT-GUEST-UP")
        return up - machine.started


SUBJECTS = {"godwit-vmm": vmms.Godwit, "qemu q35": lambda guest: vmms.Qemu(guest, "q35"),
            "qemu microvm": lambda guest: vmms.Qemu(guest, "microvm")}


def main():
    parser = measuring.options(__doc__.split("\n", maxsplit=1)[0], 5)
    parser.add_argument("--only", choices=sorted(SUBJECTS), action="append", help="measure only this; repeatable")
    parser.add_argument("--kernels", default="vmlinux,vmlinux-amd64")
    arguments = parser.parse_args()
    if not _LAB_GUEST.exists():
        import lab_run
        words = ["--runs", str(arguments.runs), "--kernels", arguments.kernels]
        words += [word for name in arguments.only or [] for word in ("--only", name)]
        return lab_run.run("kernel_boot.py", words, arguments.save)
    names = arguments.only or list(SUBJECTS)
    rows, result = [], {}
    for kernel in arguments.kernels.split(","):
        guest = vmms.Guest(_COMMAND_LINE, kernel=_LAB_GUEST / kernel, initrd=_LAB_GUEST / "initramfs.cpio")
        times = {name: [] for name in names}
        for number in range(arguments.runs):
            for offset in range(len(names)):
                name = names[(number + offset) % len(names)]
                times[name].append(boot(SUBJECTS[name], guest))
        for name, values in times.items():
            one = measuring.summary(values)
            result[f"{name}, {kernel}"] = one
            rows.append([f"{name}, {kernel}", one["median"], one["min"], one["max"], one["n"]])
    measuring.table("process start to the guest's init, s (promise for godwit-vmm: at most 8)",
                    ["", "median", "min", "max", "n"], rows)
    measuring.finish("kernel_boot", {"unit": "s", "subjects": result}, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
