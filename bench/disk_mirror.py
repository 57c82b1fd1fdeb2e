#!/usr/bin/env python3
"""Moving a disk under load: godwit-blk beside QEMU's blockdev-mirror, on the same devices with the same load.

The devices are two loop devices over files of one folder, opened with O_DIRECT, that a blkio control group (version 1) keeps
within a bandwidth and a rate of operations: the kernel throttles both movers in the same way. fio writes and reads through the
server's NBD door, at a steady rate, from just before the move until its end. Movers: `godwit disk move --scheme auto`, and
qemu-storage-daemon's blockdev-mirror with copy-mode background and write-blocking (cache.direct, io_uring). They take turns, in an
order that rotates; every row is medians over the rounds.

Needs root, free loop devices and a blkio controller of version 1.

    bench/disk_mirror.py [--runs 3] [--folder DIR] [--pairs fast-slow,..] [--loads randwrite,..] [--save]
"""

import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measuring
import vmms

sys.path.insert(0, str(measuring.ROOT / "tests/system"))
import blk_server  # noqa: E402

DISK_BYTES = 128 << 20
CGROUPS = Path("/sys/fs/cgroup/blkio")
# Bytes and operations per second, each for reads and for writes.
DEVICES = {"fast": (300 << 20, 30_000), "slow": (40 << 20, 1500)}
PAIRS = ("fast-slow", "slow-fast", "fast-fast", "slow-slow")
LOADS = {
    "randread": "rw=randread\nbs=4k\nrate_iops=400",
    "randwrite": "rw=randwrite\nbs=4k\nrate_iops=400",
    "skewed": "rw=randrw\nrwmixread=30\nbs=4k\nrandom_distribution=zoned:80/20:20/80\nrate_iops=120,280",
    "sequential": "rw=write\nbs=64k\nrate_iops=100",
    "oltp": "rw=randrw\nrwmixread=70\nbs=8k\nfsync=16\nrate_iops=210,90",
    "mail": "rw=randrw\nrwmixread=50\nbs=16k\nfsync=8\nrate_iops=100,100",
}
MOVERS = ("godwit", "background", "write-blocking")
LIMIT_S = 120


class Devices:
    """Two loop devices, and the group in which they have their speeds."""

    def __init__(self, folder, stack):
        self.group = CGROUPS / f"godwit-bench-{os.getpid()}"
        self.group.mkdir()
        stack.callback(self._remove_group)
        self.paths = []
        for name in ("a.raw", "b.raw"):
            with open(folder / name, "wb") as image:
                for _ in range(DISK_BYTES >> 20):
                    image.write(os.urandom(1 << 20))
                image.flush()
                os.fsync(image.fileno())
            made = subprocess.run(["losetup", "--find", "--show", "--direct-io=on", folder / name], check=True,
                                  capture_output=True, text=True)
            self.paths.append(made.stdout.strip())
            stack.callback(subprocess.run, ["losetup", "--detach", self.paths[-1]], check=True)

    def _remove_group(self):
        for _ in range(100):
            with contextlib.suppress(OSError):
                self.group.rmdir()
                return
            time.sleep(0.1)  # The kernel lets it go a moment after the last process of it.
        raise vmms.Failed(f"{self.group} stays")

    def set_speeds(self, kinds):
        for path, kind in zip(self.paths, kinds):
            number = os.stat(path).st_rdev
            for what in ("read", "write"):
                for unit, value in zip(("bps", "iops"), DEVICES[kind]):
                    (self.group / f"blkio.throttle.{what}_{unit}_device").write_text(
                        f"{os.major(number)}:{os.minor(number)} {value}")

    def inside(self):
        """Words before a command that is to run in the group."""
        return ["sh", "-c", f'echo $$ > {self.group}/cgroup.procs && exec "$@"', "sh"]


class Godwit:
    def __init__(self, folder, devices):
        self.nbd = folder / "nbd.sock"
        self._server = blk_server.Server(folder, devices.paths[0], "--name", "disk", "--nbd", self.nbd,
                                         "--place", folder / "place", "--log-level", "warn",
                                         program=measuring.BINARIES / "godwit-blk", wrapper=devices.inside())

    def move(self, destination):
        """Seconds, and what was said of it."""
        begun = time.monotonic()
        self._server.call("disk_move", disk="disk0", destination=destination, scheme="auto")
        while (disk := self._server.disk())["last_move"] is None:
            if time.monotonic() - begun > LIMIT_S:
                raise vmms.Failed("the move does not end")
            time.sleep(0.01)  # To be told of the end would take a second connection; this is less than noise.
        report = disk["last_move"]
        if report["outcome"] != "moved":
            raise vmms.Failed(f"godwit: {report}")
        return time.monotonic() - begun, report["scheme"]

    def close(self):
        self._server.end()


class Qemu:
    def __init__(self, folder, devices, copy_mode):
        self.nbd = folder / "nbd.sock"
        monitor = folder / "qmp.sock"
        self._copy_mode = copy_mode
        self._process = subprocess.Popen(
            [*devices.inside(), "qemu-storage-daemon", *self._device("source", devices.paths[0]),
             *self._device("target", devices.paths[1]),
             "--nbd-server", f"addr.type=unix,addr.path={self.nbd}",
             "--export", "type=nbd,id=e0,node-name=source,writable=on,name=",
             "--chardev", f"socket,id=m,path={monitor},server=on,wait=off", "--monitor", "chardev=m"])
        vmms.wait_listening(monitor, self._process)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(LIMIT_S)
        connection.connect(str(monitor))
        self._qmp = vmms.Qmp(connection)
        vmms.wait_listening(self.nbd, self._process)

    @staticmethod
    def _device(name, path):
        return ["--blockdev", f"driver=host_device,node-name={name},filename={path},cache.direct=on,aio=io_uring"]

    def move(self, _):
        begun = time.monotonic()
        self._qmp.command("blockdev-mirror", **{"job-id": "j", "device": "source", "target": "target", "sync": "full",
                                                "copy-mode": self._copy_mode, "filter-node-name": "mirror"})
        self._qmp.wait_event("JOB_STATUS_CHANGE", "ready")
        self._qmp.command("job-complete", id="j")
        self._qmp.wait_event("JOB_STATUS_CHANGE", "concluded")
        return time.monotonic() - begun, self._copy_mode

    def close(self):
        self._process.kill()
        self._process.wait()


def start_fio(folder, nbd, load):
    job = folder / "job.fio"
    job.write_text(f"[j]\nioengine=nbd\nuri=nbd+unix:///?socket={nbd}\n{LOADS[load]}\niodepth=8\ntime_based=1\n"
                   f"runtime={LIMIT_S}\nsize={DISK_BYTES}\nunified_rw_reporting=1\nrandseed=7\n")
    return subprocess.Popen(["fio", "--output-format=json", job], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def figures(fio):
    """Of all requests until now."""
    fio.send_signal(signal.SIGINT)
    output, complaint = fio.communicate(timeout=LIMIT_S)
    last = output.rfind('{\n  "fio version"')
    if last < 0:
        raise vmms.Failed(f"fio: {output[-300:]} {complaint[-300:]}")
    job, _ = json.JSONDecoder().raw_decode(output[last:])
    mixed = job["jobs"][0]["mixed"]
    if job["jobs"][0]["error"] or not mixed["total_ios"]:
        raise vmms.Failed(f"fio: {complaint[-300:]}")
    return {"p99_us": mixed["clat_ns"]["percentile"]["99.000000"] / 1000, "mean_us": mixed["clat_ns"]["mean"] / 1000,
            "iops": mixed["iops"]}


def run(folder, devices, mover, load):
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        server = Godwit(place, devices) if mover == "godwit" else Qemu(place, devices, mover)
        try:
            fio = start_fio(place, server.nbd, load)
            try:
                time.sleep(1)  # Of load before the move: there is no event for "it runs steadily".
                seconds, scheme = server.move(devices.paths[1])
                return {"seconds": seconds, "scheme": scheme, **figures(fio)}
            finally:
                fio.kill()
                fio.wait()
        finally:
            server.close()


def row_of(runs):
    row = {mover: {key: statistics.median(one[key] for one in runs[mover]) for key in ("seconds", "p99_us", "mean_us", "iops")}
           for mover in MOVERS}
    row["schemes"] = sorted({one["scheme"] for one in runs["godwit"]})
    ours = row["godwit"]
    row["better_than"] = {mover: {"time": ours["seconds"] < row[mover]["seconds"], "p99": ours["p99_us"] < row[mover]["p99_us"]}
                          for mover in MOVERS[1:]}
    return row


def main():
    parser = measuring.options(__doc__.split("\n", maxsplit=1)[0], 3)
    parser.add_argument("--folder", type=Path, default=measuring.ROOT / "build", help="where the images lie")
    parser.add_argument("--pairs", default=",".join(PAIRS), help="devices, source first")
    parser.add_argument("--loads", default=",".join(LOADS), help="what fio does")
    arguments = parser.parse_args()
    if os.geteuid() != 0 or not (CGROUPS / "blkio.throttle.read_bps_device").exists():
        print("disk_mirror: needs root and a blkio controller of version 1", file=sys.stderr)
        return 77
    rows, lines = {}, []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="godwit-bench-", dir=arguments.folder)))
        devices = Devices(folder, stack)
        for pair in arguments.pairs.split(","):
            devices.set_speeds(pair.split("-"))
            for load in arguments.loads.split(","):
                runs = {mover: [] for mover in MOVERS}
                for number in range(arguments.runs):
                    turn = number % len(MOVERS)
                    for mover in MOVERS[turn:] + MOVERS[:turn]:
                        runs[mover].append(run(folder, devices, mover, load))
                row = rows[f"{pair} {load}"] = row_of(runs)
                lines.append([f"{pair} {load}", "/".join(row["schemes"]),
                              *[round(row[mover][key], 1 if key == "seconds" else 0) for key in ("seconds", "p99_us")
                                for mover in MOVERS]])
                print(*lines[-1], flush=True)
    measuring.table("time of the move, s, and the guest's p99, us", ["devices, load", "scheme", *MOVERS, *MOVERS], lines)
    verdicts = [one for row in rows.values() for one in row["better_than"].values()]
    either = sum(one["time"] or one["p99"] for one in verdicts)
    both = sum(one["time"] and one["p99"] for one in verdicts)
    print(f"\nof {len(verdicts)} comparisons: quicker or with a lower p99 in {either}, both in {both}")
    measuring.finish("disk_mirror", {"devices": DEVICES, "disk_bytes": DISK_BYTES, "rows": rows,
                                     "comparisons": len(verdicts), "either": either, "both": both}, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
