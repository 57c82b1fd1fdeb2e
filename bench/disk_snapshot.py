#!/usr/bin/env python3
"""What freezing a disk costs, over the size of the disk: time, the guest's requests held, bytes written.

A beacon with one vCPU writes to the first 64 MiB of a sparse image (random 4 KiB, depth 4, flush every 16, 1000 requests a second). It
is frozen into a new delta and merged again, over and over; the sizes take turns. duration_us and pause_us are those of the report
(docs/reports.md, "disk-snapshot"), written_bytes what was written to lay the delta out (LS-1: at most 1 MiB). Slope: of the median
duration over the size, microseconds per TiB.

    bench/disk_snapshot.py [--runs 10] [--folder /var/tmp] [--save]
"""

import json
import pathlib
import select
import shutil
import sys
import tempfile
import uuid

import measuring

sys.path.insert(0, str(measuring.ROOT / "tests/system"))
from vmm_harness import Console, Vmm  # noqa: E402

SIZES = {"1 GiB": 1 << 30, "16 GiB": 16 << 30, "128 GiB": 128 << 30, "1 TiB": 1 << 40}
LOAD = "disk=journal disk_pattern=random disk_qd=4 disk_flush=16 disk_span=64M disk_rate=1000 report_ms=200"
WRITTEN_MAX = 1 << 20


class Machine:
    def __init__(self, folder, size):
        self.folder = folder
        folder.mkdir()
        image = folder / "disk.raw"
        with open(image, "wb") as file:
            file.truncate(size)
        spec = folder / "m.json"
        spec.write_text(json.dumps({
            "name": "m", "id": str(uuid.uuid4()), "vcpus": 1, "memory": {"bytes": 64 << 20},
            "kernel": {"path": str(measuring.BINARIES / "beacon"), "command_line": LOAD},
            "disks": [{"path": str(image)}]}))
        self.vmm = Vmm(folder, "m", measuring.BINARIES / "godwit-vmm", ["--spec", str(spec)])
        if self.vmm.ready != {"ok": True}:
            raise SystemExit(self.vmm.ready)
        self.vmm.call("subscribe")
        self.console = Console(folder / "machines/m/console-serial.sock")
        self.console.read_until("report", 30)

    def freeze(self):
        """The report of one snapshot, whose delta is merged again."""
        report = self.vmm.call("disk_snapshot", disk="disk0", delta=str(self.folder / "delta"))
        self.console.read_until("report", 30, self.console.lines())
        self.vmm.call("disk_merge", disk="disk0")
        while not any(event["event"] == "disk_merge" and event["state"] == "ended" for event in self.vmm.events):
            if not select.select([self.vmm.socket], [], [], 60)[0]:
                raise SystemExit("a merge does not end")
            self.vmm.events.append(json.loads(self.vmm.socket.recv(1 << 20)))
        self.vmm.events.clear()
        merged = self.vmm.call("disks", disk="disk0")["disks"][0]["last_merge"]
        if merged["outcome"] != "merged":
            raise SystemExit(merged)
        return report

    def end(self):
        self.console.type("stop")
        final, _ = self.console.read_until("final", 60)
        if not final["ok"] or final["disk"]["errors"]:
            raise SystemExit(final)


def slope(points):
    """Least squares, of (x, y)."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def main():
    parser = measuring.options(__doc__.split("\n", maxsplit=1)[0], 10)
    parser.add_argument("--folder", default="/var/tmp", help="where images, deltas and documents lie")
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="gds-", dir=arguments.folder))
    machines = {}
    keys = ("duration_us", "pause_us", "written_bytes", "delta_bytes")
    taken = {name: {key: [] for key in keys} for name in SIZES}
    try:
        for number, (name, size) in enumerate(SIZES.items()):
            machines[name] = Machine(folder / str(number), size)
        names = list(SIZES)
        for run in range(arguments.runs):
            for name in names[run % len(names):] + names[:run % len(names)]:
                report = machines[name].freeze()
                for key in keys:
                    taken[name][key].append(report[key])
        for machine in machines.values():
            machine.end()
    finally:
        for machine in machines.values():
            machine.vmm.kill()
        shutil.rmtree(folder)
    result = {name: {key: measuring.summary(values) for key, values in by_key.items()} for name, by_key in taken.items()}
    for key in keys:
        measuring.table(f"{key} of a snapshot", ["disk", "median", "min", "max", "n"],
                        [[name, *by_key[key].values()] for name, by_key in result.items()])
    per_tib = slope([(SIZES[name] / (1 << 40), by_key["duration_us"]["median"]) for name, by_key in result.items()])
    print(f"slope of the duration: {per_tib:.0f} us per TiB")
    measuring.finish("disk_snapshot", {"by_size": result, "slope_us_per_tib": per_tib}, arguments)
    if max(max(by_key["written_bytes"]) for by_key in taken.values()) > WRITTEN_MAX:
        sys.exit(f"more than {WRITTEN_MAX} bytes were written")


if __name__ == "__main__":
    main()
