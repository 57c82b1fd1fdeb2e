#!/usr/bin/env python3
"""godwit-blk against qemu-storage-daemon: the same file, the same client, in turns.

    bench/blk_doors.py [--bin DIR] [--folder DIR] [--rounds N] [--seconds S] [--doors nbd,vhost] [--json FILE]

NBD is driven by fio's nbd engine here; vhost-user-blk by fio (libaio) in a stock guest under QEMU without KVM, where the
guest's emulated processor, not the server, sets most of the pace. Each round runs both servers one after the other, in
changing order; shown are medians over the rounds, their ratio, and the server's CPU time per request in us, which other
load on the machine changes least.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DISK_BYTES = 512 << 20
JOBS = [(rw, depth) for rw in ("randread", "randwrite") for depth in (1, 32)]
SHOWN = ("iops", "mean_us", "p99_us", "cpu_us")
GUEST_LIMIT_S = 200


class Server:
    """One of the two, with one door open; ready when constructed."""

    def __init__(self, kind, door, image, socket, programs):
        self.kind = kind
        if kind == "godwit":
            flag = "--nbd" if door == "nbd" else "--vhost-user-blk"
            command = [programs / "godwit-blk", "serve", "--json", "--log-level", "error", flag, socket, image]
        else:
            file = f"driver=file,node-name=f0,filename={image},cache.direct=on,aio=io_uring,discard=unmap"
            command = ["qemu-storage-daemon", "--blockdev", file]
            if door == "nbd":
                command += ["--nbd-server", f"addr.type=unix,addr.path={socket}",
                            "--export", "type=nbd,id=e0,node-name=f0,writable=on,name="]
            else:
                command += ["--object", "iothread,id=t0",
                            "--export", "type=vhost-user-blk,id=e0,node-name=f0,writable=on,iothread=t0,"
                                        f"num-queues=4,addr.type=unix,addr.path={socket}"]
            command += ["--chardev", "stdio,id=m", "--monitor", "chardev=m"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if not self.process.stdout.readline():  # our line, or the monitor's greeting
            raise SystemExit(f"{command[0]} did not start")

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self):
        # QEMU 7.2's daemon does not end on SIGTERM after a vhost-user front end has gone. Ours does, and has
        # given back the image's lock by then, which QEMU would not wait for.
        if self.kind == "godwit":
            self.process.terminate()
        else:
            self.process.kill()
        self.process.communicate()


def figures(output):
    """IOPS, mean and 99th percentile of the latency in us, of fio's JSON."""
    job = json.loads(output[output.index("{"):])["jobs"][0]
    side = max((job["read"], job["write"]), key=lambda one: one["total_ios"])
    return {"iops": side["iops"], "count": side["total_ios"], "mean_us": side["lat_ns"]["mean"] / 1000,
            "p99_us": side["clat_ns"]["percentile"]["99.000000"] / 1000}


def run_nbd(folder, server, socket, seconds):
    found = {}
    for rw, depth in JOBS:
        before = server.cpu_seconds()
        job = folder / "job.fio"
        job.write_text(f"[j]\nioengine=nbd\nuri=nbd+unix:///?socket={socket}\nrw={rw}\nbs=4k\niodepth={depth}\n"
                       f"time_based=1\nruntime={seconds}\nsize={DISK_BYTES}\n")
        done = subprocess.run(["fio", "--output-format=json", job], capture_output=True, text=True, check=True)
        row = found[f"{rw} qd{depth}"] = figures(done.stdout)
        row["cpu_us"] = (server.cpu_seconds() - before) * 1e6 / max(row["count"], 1)
    return found


def run_vhost(folder, server, socket, seconds):
    sys.path.insert(0, str(ROOT / "tests/guest"))
    from qemu_guest import Guest
    script = "".join(f"echo JOB-{rw}-{depth}\nfio --name=j --filename=/dev/vda --rw={rw} --bs=4k --iodepth={depth} "
                     f"--ioengine=libaio --direct=1 --time_based --runtime={seconds} --output-format=json\n"
                     for rw, depth in JOBS)
    guest = Guest(folder, script, ["-chardev", f"socket,id=c,path={socket}",
                                   "-device", "vhost-user-blk-pci,chardev=c,num-queues=1"])
    try:
        text = guest.wait_for("GODWIT-GUEST-EXIT", GUEST_LIMIT_S)
    finally:
        guest.close()
    parts = re.split(r"JOB-(\w+)-(\d+)\n", text)[1:]
    found = {f"{parts[i]} qd{parts[i + 1]}": figures(parts[i + 2][:parts[i + 2].rindex("}") + 1])
             for i in range(0, len(parts), 3)}
    requests = sum(row["count"] for row in found.values())
    for row in found.values():
        row["cpu_us"] = server.cpu_seconds() * 1e6 / requests  # of all jobs together
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=Path, default=ROOT / "build/release/bin")
    parser.add_argument("--folder", type=Path, default=ROOT / "build", help="where the image lies")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--doors", default="nbd,vhost")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        image = folder / "disk.raw"
        with open(image, "wb") as file:
            for _ in range(DISK_BYTES >> 20):
                file.write(b"\xa5" * (1 << 20))
            file.flush()
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # direct I/O waits for cached pages
        for door in options.doors.split(","):
            rounds = {"godwit": [], "qemu": []}
            for number in range(options.rounds):
                for kind in ("godwit", "qemu") if number % 2 == 0 else ("qemu", "godwit"):
                    socket = folder / f"{kind}.{door}.{number}"
                    server = Server(kind, door, image, socket, options.bin)
                    try:
                        run = run_nbd if door == "nbd" else run_vhost
                        rounds[kind].append(run(folder, server, socket, options.seconds))
                    finally:
                        server.close()
            results[door] = show(door, rounds)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


def show(door, rounds):
    table = {}
    for job in rounds["godwit"][0]:
        row = {kind: {what: statistics.median(one[job][what] for one in runs) for what in SHOWN}
               for kind, runs in rounds.items()}
        row["iops_ratio"] = row["godwit"]["iops"] / row["qemu"]["iops"]
        table[job] = row
        ours, theirs = row["godwit"], row["qemu"]
        columns = "   ".join(f"{name} {one['iops']:6.0f} IOPS {one['mean_us']:6.0f} us p99 {one['p99_us']:6.0f} cpu {one['cpu_us']:5.1f}"
                             for name, one in (("godwit", ours), ("qemu", theirs)))
        print(f"{door:5} {job:14} {columns}   ratio {row['iops_ratio']:.2f}", flush=True)
    return table


if __name__ == "__main__":
    main()
