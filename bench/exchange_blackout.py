#!/usr/bin/env python3
"""The pause of an exchange against the size of the guest's RAM, and against QEMU's hand-over on the same host.

The guest is beacon with 2 vCPUs, a working set of half its RAM that it keeps writing to, and a disk journal.
godwit-vmm hands it to godwit-vmm-next and back. QEMU (q35, same KVM) hands it to a second QEMU process: RAM is a
file in /dev/shm that both map shared, and the capability x-ignore-shared leaves it out of the stream.
Two measures for each: the monitor's own (blackout_us of our report; QEMU's STOP event at the source to its RESUME
event at the destination), and the widest gap the guest saw (reset before, asked after). The monitors take turns of
five runs of each size. The slope is a least-squares line over all runs, with its 95 % interval.

With --cpr also QEMU's mode cpr-transfer, whose new process makes its devices after the guest has stopped.

    bench/exchange_blackout.py [--runs 15] [--sizes 256,1024,2048,4096] [--no-qemu] [--cpr QEMU] [--lab] [--save]
"""

import contextlib
import functools
import itertools
import json
import math
import os
import statistics
import sys
import tempfile
from pathlib import Path

import measuring
import vmms

_RUNS_PER_TURN = 5

# Two-sided 97.5 % quantiles of Student's t; beyond the table the normal one is close enough.
_T = {10: 2.228, 20: 2.086, 30: 2.042, 50: 2.009, 100: 1.984}


def slope(points: list) -> dict:
    """Least squares through (x, y): the slope and the half width of its 95 % interval."""
    count = len(points)
    mean_x = statistics.fmean(x for x, _ in points)
    mean_y = statistics.fmean(y for _, y in points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    value = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    residual = sum((y - mean_y - value * (x - mean_x)) ** 2 for x, y in points)
    error = math.sqrt(residual / (count - 2) / spread)
    quantile = _T[max((key for key in _T if key <= count - 2), default=10)]
    return {"per_gib": value, "interval_95": [value - quantile * error, value + quantile * error], "n": count}


def guest_of(size_mib, disk):
    # sse=0: on some hosts QEMU's hand-over loses the upper halves of vector registers (README.md), which would
    # end the comparison. That ours keeps them is what the demo and the tests show.
    return vmms.Guest(f"sse=0 mem_set={size_mib // 2}M mem_rate=20000 mem_pattern=hot disk=journal disk_qd=2 disk_rate=300 "
                      f"disk_span=8M disk_flush=64 report_ms=86400000", memory_mib=size_mib, cpus=2, disk=disk)


def widest_gap(report):
    if report["errors"]:
        raise vmms.Failed(f"the guest counted {report['errors']} errors")
    return max(cpu["max_gap_us"] for cpu in report["cpus"])


class Chain:
    """One machine, handed over again and again."""

    machine: vmms.Vmm

    def end(self):
        """The guest checks itself a last time."""
        final = self.machine.serial.ask("stop", "final")
        if not final["ok"]:
            raise vmms.Failed(f"the guest is not content: {final}")


class GodwitChain(Chain):
    """One machine under godwit-vmm, exchanged again and again."""

    def __init__(self, size_mib, disk):
        self.size_mib = size_mib
        self.machine = vmms.Godwit(guest_of(size_mib, disk))
        self._number = 0
        self.machine.serial.wait_event("populated")

    def hop(self):
        """(blackout, gap) of one exchange, microseconds."""
        programs = [measuring.BINARIES / name for name in ("godwit-vmm-next", "godwit-vmm")]
        self.machine.serial.ask("reset-gaps", "gaps-reset")
        report = self.machine.exchange(programs[self._number % 2])
        self._number += 1
        if report["outcome"] != "done" or report["guest_bytes_copied"]:
            raise vmms.Failed(f"exchange: {report}")
        return report["blackout_us"], widest_gap(self.machine.serial.ask("report", "report"))

    def close(self):
        self.machine.__exit__()


class QemuChain(Chain):
    """One machine under QEMU, handed from process to process."""

    def __init__(self, size_mib, disk):
        self.size_mib = size_mib
        self._guest = guest_of(size_mib, disk)
        handle, self._ram_path = tempfile.mkstemp(prefix="godwit-bench-ram-", dir="/dev/shm")
        os.truncate(handle, size_mib << 20)
        os.close(handle)
        self.machine = self._start([])
        self.machine.serial.wait_event("populated")

    def _start(self, incoming):
        ram = ["-object", f"memory-backend-file,id=ram,size={self.size_mib}M,mem-path={self._ram_path},share=on"]
        machine = vmms.Qemu(self._guest, "q35", ram=ram, incoming=incoming)
        try:
            machine.qmp.command("migrate-set-capabilities", capabilities=[
                {"capability": "x-ignore-shared", "state": True}, {"capability": "events", "state": True}])
        except (vmms.Failed, OSError) as error:
            complaint = machine.complaint()
            machine.__exit__()
            raise vmms.Failed(f"{error}: {complaint}") from error
        return machine

    def hop(self):
        """(STOP to RESUME, gap) of one hand-over, microseconds. The successor is ready before the gap is reset."""
        successor = self._start(["-incoming", "defer"])
        path = successor.folder / "migration.sock"
        successor.qmp.command("migrate-incoming", uri=f"unix:{path}")
        self.machine.serial.ask("reset-gaps", "gaps-reset")
        self.machine.qmp.command("migrate", uri=f"unix:{path}")
        stopped = self.machine.qmp.wait_event("STOP")
        resumed = successor.qmp.wait_event("RESUME")
        self.machine.qmp.wait_event("MIGRATION", "completed")
        self.machine.__exit__()
        self.machine = successor
        report = successor.serial.ask("report", "report")
        return _microseconds(resumed) - _microseconds(stopped), widest_gap(report)

    def close(self):
        self.machine.__exit__()
        os.unlink(self._ram_path)


class CprChain(Chain):
    """One machine under QEMU 10 or newer, handed over with mode cpr-transfer: the new process gets RAM's descriptor from
    the old one and then makes its devices, while the guest stands still."""

    def __init__(self, size_mib, disk, program):
        self.size_mib = size_mib
        self._guest = guest_of(size_mib, disk)
        self._program = program
        self._numbers = itertools.count()
        self._folder = tempfile.TemporaryDirectory(prefix="godwit-bench-cpr-")
        self.machine = self._start([])
        self.machine.serial.wait_event("populated")

    def _start(self, incoming):
        ram = ["-object", f"memory-backend-memfd,id=ram,size={self.size_mib}M,share=on", "-machine", "aux-ram-share=on"]
        return vmms.Qemu(self._guest, "q35", ram=ram, incoming=incoming, program=self._program)

    def hop(self):
        """(STOP to RESUME, gap) of one hand-over, microseconds."""
        number = next(self._numbers)
        paths = {kind: f"{self._folder.name}/{kind}{number}.sock" for kind in ("main", "cpr")}
        channels = {kind: {"channel-type": kind, "addr": {"transport": "socket", "type": "unix", "path": path}}
                    for kind, path in paths.items()}
        successor = self._start(["-incoming", f"unix:{paths['main']}", "-incoming", json.dumps(channels["cpr"])])
        try:
            # It listens there before it does anything else; its own monitor comes later.
            vmms.wait_listening(Path(paths["cpr"]), successor.process)
            self.machine.qmp.command("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
            self.machine.qmp.command("migrate-set-parameters", mode="cpr-transfer")
            self.machine.serial.ask("reset-gaps", "gaps-reset")
            self.machine.qmp.command("migrate", channels=list(channels.values()))
            stopped = self.machine.qmp.wait_event("STOP")
            resumed = successor.qmp.wait_event("RESUME")
        except (vmms.Failed, OSError) as error:
            complaint = self.machine.complaint() + successor.complaint()
            successor.__exit__()
            raise vmms.Failed(f"{error}: {complaint}") from error
        self.machine.__exit__()
        self.machine = successor
        return _microseconds(resumed) - _microseconds(stopped), widest_gap(successor.serial.ask("report", "report"))

    def close(self):
        self.machine.__exit__()
        self._folder.cleanup()


def _microseconds(event):
    return event["timestamp"]["seconds"] * 1000000 + event["timestamp"]["microseconds"]


def measure(kind, sizes, runs, folder, results):
    """Adds to size -> list of (blackout, gap). One machine at a time: they would disturb each other."""
    for size in sizes:
        disk = Path(folder) / f"disk-{size}.raw"
        with open(disk, "wb") as image:
            image.truncate(64 << 20)
        with contextlib.closing(kind(size, disk)) as chain:
            chain.hop()  # warms caches; not counted
            results.setdefault(size, []).extend(chain.hop() for _ in range(runs))
            chain.end()
        disk.unlink()


def describe(results):
    sizes = {str(size): {"blackout_us": measuring.summary([one[0] for one in pairs]),
                         "guest_gap_us": measuring.summary([one[1] for one in pairs])}
             for size, pairs in results.items()}
    document = {"by_ram_mib": sizes}
    if len(results) > 1:
        document["blackout_slope_us"] = slope([(size / 1024, blackout) for size, pairs in results.items()
                                               for blackout, _ in pairs])
    return document


def main():
    parser = measuring.options(__doc__.split("\n", maxsplit=1)[0], 15, lab=True)
    parser.add_argument("--sizes", default="256,1024,2048,4096", help="RAM sizes, MiB")
    parser.add_argument("--no-qemu", action="store_true")
    parser.add_argument("--no-godwit", action="store_true")
    parser.add_argument("--cpr", metavar="QEMU", help="also mode cpr-transfer of this QEMU, 10 or newer")
    parser.add_argument("--folder", default=str(measuring.ROOT / "build"), help="where the disk images go")
    arguments = parser.parse_args()
    if arguments.lab:
        import lab_run
        words = ["--runs", str(arguments.runs), "--sizes", arguments.sizes, "--folder", "/mnt/bench"]
        words += ["--no-qemu"] * arguments.no_qemu + ["--no-godwit"] * arguments.no_godwit
        return lab_run.run("exchange_blackout.py", words, arguments.save, before="scratch_ext4 /mnt/bench")
    sizes = [int(size) for size in arguments.sizes.split(",")]
    kinds = {"godwit": GodwitChain, "qemu": QemuChain}
    if arguments.cpr:
        kinds["cpr-transfer"] = functools.partial(CprChain, program=arguments.cpr)
    document = {"unit": "us"}
    rows = []
    with tempfile.TemporaryDirectory(prefix="godwit-bench-", dir=arguments.folder) as folder:
        kinds = {name: kind for name, kind in kinds.items() if not getattr(arguments, f"no_{name}", False)}
        results = {name: {} for name in kinds}
        # In turns of a few, so that other load on the host meets all of them.
        for first in range(0, arguments.runs, _RUNS_PER_TURN):
            for name, kind in kinds.items():
                measure(kind, sizes, min(_RUNS_PER_TURN, arguments.runs - first), folder, results[name])
        for name in kinds:
            document[name] = describe(results[name])
            for size, one in document[name]["by_ram_mib"].items():
                rows.append([f"{name} {size} MiB", one["blackout_us"]["median"], one["blackout_us"]["max"],
                             one["guest_gap_us"]["median"], one["guest_gap_us"]["max"], one["blackout_us"]["n"]])
    measuring.table("hand-over on one host, us", ["", "blackout", "max", "guest gap", "max", "n"], rows)
    for name in kinds:
        line = document.get(name, {}).get("blackout_slope_us")
        if line:
            low, high = line["interval_95"]
            print(f"\n{name}: slope {line['per_gib']:.1f} us per GiB, 95 % interval [{low:.1f}, {high:.1f}]: "
                  f"{'indistinguishable from 0' if low <= 0 <= high else 'not 0'}")
    for name, promise in (("qemu", 0.1), ("cpr-transfer", 0.05)):
        if "godwit" in document and name in document:
            ours, theirs = ([one["blackout_us"]["median"] for one in document[kind]["by_ram_mib"].values()]
                            for kind in ("godwit", name))
            ratio = round(statistics.median(ours) / statistics.median(theirs), 4)
            document["ratio" if name == "qemu" else "ratio_cpr"] = ratio
            print(f"\ngodwit / {name} blackout: {ratio:.4f} (promise: at most {promise})")
    measuring.finish("exchange_blackout", document, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
