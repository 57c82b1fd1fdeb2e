#!/usr/bin/env python3
"""What a disk that can move costs its guest: the pause of the switch, and every request when nothing moves.

Pause: a beacon with one vCPU writes to a disk of 64 MiB (random 4 KiB, depth 4, flush every 16, 2000 requests a second) that moves
between two files of one folder, by each scheme in turn, over and over. Reported is pause_us: the guest's requests are held,
those on their way end, what is left is copied and made durable, the document is rewritten. With the run directory in memory, as
on a host, and on the disk.

Requests: block_file_bench with and without a MovingDevice, in turns; per round the ratios of the two in operations per second and
in processor time per operation, which other load disturbs less.

    bench/disk_switch.py [--runs 10] [--folder /var/tmp] [--seconds 2] [--save]
"""

import json
import os
import pathlib
import shutil
import select
import subprocess
import sys
import tempfile
import uuid

import measuring

sys.path.insert(0, str(measuring.ROOT / "tests/system"))
from vmm_harness import Console, Vmm  # noqa: E402

SCHEMES = ("dbt", "slr", "tiered", "mirror", "aio", "lr")
DISK_BYTES = 64 << 20
LOAD = "disk=journal disk_pattern=random disk_qd=4 disk_flush=16 disk_span=64M disk_rate=2000 disk_verify=0 report_ms=200"
BENCH = measuring.BINARIES / "block_file_bench"


def wait_end(vmm):
    """The report of the move that goes on."""
    while not any(event.get("state") == "ended" for event in vmm.events):
        if not select.select([vmm.socket], [], [], 60)[0]:
            raise SystemExit("a move does not end")
        vmm.events.append(json.loads(vmm.socket.recv(1 << 20)))
    vmm.events.clear()
    return vmm.call("disks", disk="disk0")["disks"][0]["last_move"]


def pauses(run_directory, folder, runs):
    """pause_us by scheme."""
    places = [folder / "a.raw", folder / "b.raw"]
    with open(places[0], "wb") as file:
        file.truncate(DISK_BYTES)
    spec = run_directory / "m.json"
    spec.write_text(json.dumps({
        "name": "m", "id": str(uuid.uuid4()), "vcpus": 1, "memory": {"bytes": 64 << 20},
        "kernel": {"path": str(measuring.BINARIES / "beacon"), "command_line": LOAD},
        "disks": [{"path": str(places[0])}]}))
    vmm = Vmm(run_directory, "m", measuring.BINARIES / "godwit-vmm", ["--spec", str(spec)])
    if vmm.ready != {"ok": True}:
        raise SystemExit(vmm.ready)
    taken = {scheme: [] for scheme in SCHEMES}
    try:
        vmm.call("subscribe")
        console = Console(run_directory / "machines/m/console-serial.sock")
        console.read_until("report", 30)
        for run in range(2 * runs):
            for number, scheme in enumerate(SCHEMES):
                there = places[(run * len(SCHEMES) + number + 1) % 2]
                vmm.call("disk_move", disk="disk0", destination=str(there), scheme=scheme)
                report = wait_end(vmm)
                if report["outcome"] != "moved":
                    raise SystemExit(report)
                if run % 2:
                    taken[scheme].append(report["pause_us"])  # Both directions are the same; half of them warm up.
                (places[0] if there == places[1] else places[1]).unlink()
        console.type("stop")
        final, _ = console.read_until("final", 60)
        if not final["ok"] or final["disk"]["errors"]:
            raise SystemExit(final)
        console.socket.close()
    finally:
        vmm.kill()
    return taken


def run_bench(path, operation, depth, seconds, *layers):
    """Operations per second, and microseconds of processor time per operation."""
    with subprocess.Popen([BENCH, path, operation, str(depth), str(seconds), *layers], stdout=subprocess.PIPE,
                          text=True) as process:
        rate = float(process.stdout.read())
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit("block_file_bench failed")
    return rate, (used.ru_utime + used.ru_stime) * 1e6 / (rate * seconds)


def idle_cost(folder, runs, seconds):
    """Per case: operations per second without, and per round the ratios with a MovingDevice to without."""
    image = folder / "cost.raw"
    with open(image, "wb") as file:
        for _ in range(256):
            file.write(b"\x5a" * (1 << 20))
        os.fsync(file.fileno())
    cases = {}
    for operation in ("read", "write"):
        for depth in (1, 32):
            plain, rates, times = [], [], []
            for run in range(runs):
                order = [(), ("movable",)] if run % 2 else [("movable",), ()]
                found = {layers: run_bench(image, operation, depth, seconds, *layers) for layers in order}
                plain.append(found[()][0])
                rates.append(found[("movable",)][0] / found[()][0])
                times.append(found[("movable",)][1] / found[()][1])
            cases[f"4k rand{operation} qd{depth}"] = {"iops": measuring.summary(plain), "rate": measuring.summary(rates),
                                                      "processor_time": measuring.summary(times)}
    return cases


def main():
    parser = measuring.options(__doc__.split("\n", maxsplit=1)[0], 10)
    parser.add_argument("--folder", default="/var/tmp", help="where the images lie")
    parser.add_argument("--seconds", type=int, default=2, help="of each run of block_file_bench")
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="gds-", dir=arguments.folder))
    result = {"pause_us": {}}
    try:
        for name, place in (("memory", "/dev/shm"), ("disk", arguments.folder)):
            run_directory = pathlib.Path(tempfile.mkdtemp(prefix="gds-", dir=place))
            try:
                result["pause_us"][name] = {scheme: measuring.summary(values)
                                            for scheme, values in pauses(run_directory, folder, arguments.runs).items()}
            finally:
                shutil.rmtree(run_directory)
        if BENCH.exists():
            result["without_a_move"] = idle_cost(folder, arguments.runs, arguments.seconds)
    finally:
        shutil.rmtree(folder)
    for name, by_scheme in result["pause_us"].items():
        measuring.table(f"pause of the switch, us; run directory in {name}", ["scheme", "median", "min", "max", "n"],
                        [[scheme, *values.values()] for scheme, values in by_scheme.items()])
    measuring.table("requests without a move: with a MovingDevice, to without",
                    ["case", "iops", "rate", "min", "max", "processor time", "min", "max"],
                    [[case, values["iops"]["median"], *list(values["rate"].values())[:3],
                      *list(values["processor_time"].values())[:3]]
                     for case, values in result.get("without_a_move", {}).items()])
    measuring.finish("disk_switch", result, arguments)


if __name__ == "__main__":
    main()
