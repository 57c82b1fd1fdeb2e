#!/usr/bin/env python3
"""Memory the monitor keeps resident beyond the guest's RAM, against QEMU.

A beacon with one vCPU, a working set, a disk journal and (as root) a network runs for a while; then the resident
size of every mapping of the process in /proc/PID/smaps is added up, except that of the mapping which is the guest's
RAM (a memfd of exactly that size in both). Pages shared with other processes (libraries, the program file) count
in full; "private" leaves them out.

    bench/resident_memory.py [--runs 5] [--save]
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import measuring
import vmms

_MIB = 1 << 20
_MEMORY_MIB = 256
_TAP = "godwit-bench0"
_LOAD = "mem_set=64M mem_rate=20000 disk=journal disk_qd=4 disk_rate=500 disk_span=8M disk_flush=64 report_ms=500"


def mappings(pid):
    """(name, size, resident, private) of every mapping, bytes."""
    found, header = [], None
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        match = re.match(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \d+\s*(.*)", line)
        if match:
            header = [match[3], int(match[2], 16) - int(match[1], 16), 0, 0]
            found.append(header)
        elif header is not None:
            key, _, value = line.partition(":")
            if key == "Rss":
                header[2] = int(value.split()[0]) * 1024
            elif key in ("Private_Clean", "Private_Dirty"):
                header[3] += int(value.split()[0]) * 1024
    return found


def beyond_ram(pid):
    """(resident, private, RAM resident) in MiB. RAM may be mapped in pieces (below and above the PCI hole)."""
    everything = mappings(pid)
    ram = [one for one in everything if "memfd:" in one[0] and one[1] >= _MEMORY_MIB * _MIB // 4]
    if sum(one[1] for one in ram) % (_MEMORY_MIB * _MIB) or not ram:
        raise vmms.Failed(f"cannot tell the guest's RAM among {[one[:2] for one in everything if 'memfd' in one[0]]}")
    rest = [one for one in everything if one not in ram]
    return [sum(one[index] for one in part) / _MIB for part, index in ((rest, 2), (rest, 3), (ram, 2))]


def qemu(guest):
    return vmms.Qemu(guest, "q35", ram=["-object", f"memory-backend-memfd,id=ram,size={_MEMORY_MIB}M,share=on"])


SUBJECTS = {"godwit-vmm": vmms.Godwit, "qemu q35": qemu}


def measure(make, guest):
    with make(guest) as machine:
        machine.serial.wait_event("populated")
        for _ in range(4):
            report = machine.serial.wait_event("report")
        if report["errors"]:
            raise vmms.Failed(f"the guest counted {report['errors']} errors")
        return beyond_ram(machine.process.pid)


def main():
    parser = measuring.options(__doc__.split("\n", maxsplit=1)[0], 5)
    parser.add_argument("--only", choices=sorted(SUBJECTS), action="append", help="measure only this; repeatable")
    arguments = parser.parse_args()
    tap = _TAP if os.geteuid() == 0 else None
    load = _LOAD + (" net=heartbeat net_rate=100" if tap else "")
    result, rows = {}, []
    if tap:
        subprocess.run(["ip", "tuntap", "add", "dev", tap, "mode", "tap"], check=True)
    try:
        if tap:
            subprocess.run(["ip", "link", "set", tap, "up"], check=True)
        with tempfile.NamedTemporaryFile(dir=measuring.ROOT / "build", prefix="godwit-bench-") as disk:
            disk.truncate(64 * _MIB)
            guest = vmms.Guest(load, memory_mib=_MEMORY_MIB, disk=Path(disk.name), tap=tap)
            for name in arguments.only or SUBJECTS:
                values = [measure(SUBJECTS[name], guest) for _ in range(arguments.runs)]
                resident, private, ram = (measuring.summary([one[index] for one in values]) for index in range(3))
                result[name] = {"resident": resident, "private": private, "ram_resident": ram}
                rows.append([name, resident["median"], resident["max"], private["median"], ram["median"]])
    finally:
        if tap:
            subprocess.run(["ip", "link", "delete", tap], check=True)
    measuring.table("resident beyond guest RAM, MiB (promise for godwit-vmm: at most 16)",
                    ["", "median", "max", "private", "RAM resident"], rows)
    measuring.finish("resident_memory", {"unit": "MiB", "network": tap is not None, "subjects": result}, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
