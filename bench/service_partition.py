#!/usr/bin/env python3
"""What the service partition and the warmed page tables cost and bring.

Three hosts take turns, each a godwitd with one machine (beacon, 2 vCPUs, a working set written at random, a disk
journal), exchanged to and fro between two builds:

    partition   the successor waits in its service partition, page tables are filled before the switch
    ordinary    the successor is an ordinary process (--service-partition off)
    cold        as partition, but page tables are left to be filled by the guest's touches

Measured: the blackout of the report; the time to prepare; and the guest's speed by its own counters (pages written per
guest second, both vCPUs; told over the virtio console, since a serial port is too slow for it): in the first 100 ms and the first second after the switch, and from the request to the switch, each
against as long a time before the request. The switch is taken as the arrival of the event "commit".

    bench/service_partition.py [--runs 15] [--set 64M] [--memory 256M] [--rate 0] [--save]
"""

import bisect
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import measuring

LIMIT_S = 60
VARIANTS = {"partition": ("prefer", ""), "ordinary": ("off", ""), "cold": ("prefer", "exchange.destination.warm:skip")}


class UnixConnection(http.client.HTTPConnection):
    """HTTP over godwitd's socket."""

    def __init__(self, path):
        super().__init__("localhost")
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.path)


class Host:
    """One godwitd with one machine, what its guest prints and what happens on it, with times of arrival."""

    def __init__(self, name, memory, load):
        policy, fault = VARIANTS[name]
        self.folder = Path(tempfile.mkdtemp(prefix="gwb-", dir="/tmp"))
        self.run_dir = self.folder / "r"
        self.environment = dict(os.environ, GODWIT_RUN_DIR=str(self.run_dir), GODWIT_FAULT=fault,
                                GODWIT_VMM=str(measuring.BINARIES / "godwit-vmm"), GODWIT_SERVICE_PARTITION=policy)
        self.counts = []  # (arrival, guest seconds, pages written), of each report
        self.events = []  # (arrival, event)
        self.hops = 0
        reader, writer = os.pipe()
        log = open(self.folder / "log", "ab")
        self.daemon = subprocess.Popen([measuring.BINARIES / "godwitd", "--ready-fd", str(writer)], pass_fds=[writer],
                                       env=self.environment, stderr=log)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            pipe.readline()
        disk = self.folder / "disk"
        with open(disk, "wb") as image:
            image.truncate(64 << 20)
        self.godwit("run", "m", "--kernel", str(measuring.BINARIES / "beacon"), "--memory", memory, "--cpus", "2",
                    "--disk", str(disk), "--cmdline", load)
        self.console = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.console.connect(str(self.run_dir / "machines/m/console-virtio.sock"))
        threading.Thread(target=self._read_console, daemon=True).start()
        threading.Thread(target=self._read_events, daemon=True).start()

    def godwit(self, *arguments):
        done = subprocess.run([measuring.BINARIES / "godwit", *arguments], env=self.environment, capture_output=True,
                              text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"godwit {arguments[0]}: {done.stdout} {done.stderr}")
        return done.stdout

    def _read_console(self):
        data = b""
        while piece := self.console.recv(65536):
            now = time.monotonic()
            *lines, data = (data + piece).split(b"\n")
            for line in lines:
                if b'"event":"report"' in line:
                    report = json.loads(line)
                    self.counts.append((now, report["guest_us"] / 1e6, sum(cpu["writes"] for cpu in report["cpus"])))

    def _read_events(self):
        connection = UnixConnection(self.run_dir / "godwitd.sock")
        connection.request("GET", "/api/v1/events")
        response = connection.getresponse()
        while line := response.readline():
            if line.startswith(b"data: "):
                self.events.append((time.monotonic(), json.loads(line[6:])))

    def wait_reports(self, seconds):
        """Lets the guest run for so many of its own seconds."""
        start = time.monotonic()
        wanted = (self.counts[-1][1] if self.counts else 0) + seconds
        while not self.counts or self.counts[-1][1] < wanted:
            if time.monotonic() - start > LIMIT_S:
                raise RuntimeError("the guest does not report")
            time.sleep(0.05)

    def hop(self):
        """One exchange: the report and what the guest's speed was around it."""
        self.wait_reports(1.2)
        program = measuring.BINARIES / ("godwit-vmm-next", "godwit-vmm")[self.hops % 2]
        self.hops += 1
        seen = len(self.events)
        asked = time.monotonic()
        report = json.loads(self.godwit("exchange", "m", "--to", str(program), "--json"))
        self.wait_reports(1.5)
        switched = next(at for at, event in self.events[seen:] if event.get("phase") == "commit")
        return report, self.speeds(asked, switched)

    def speeds(self, asked, switched):
        """Ratios to before: 100 ms after, 1 s after, while it was prepared."""
        counts = list(self.counts)
        # What arrives soonest tells best how guest time and ours go together.
        delay = min(at - guest for at, guest, _ in counts[-150:])
        times = [guest + delay for _, guest, _ in counts]

        def written(at):
            right = min(max(bisect.bisect(times, at), 1), len(times) - 1)
            (_, _, low), (_, _, high) = counts[right - 1], counts[right]
            return low + (high - low) * (at - times[right - 1]) / (times[right] - times[right - 1])

        def rate(start, end):
            return (written(end) - written(start)) / (end - start)

        before = rate(asked - 1, asked)
        return {"first_100_ms": rate(switched, switched + 0.1) / before, "first_s": rate(switched, switched + 1) / before,
                "preparing": rate(asked, switched) / before}

    def close(self):
        subprocess.run([measuring.BINARIES / "godwit", "stop", "m", "--force"], env=self.environment, check=False,
                       capture_output=True)
        self.daemon.terminate()
        self.daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def measure(arguments):
    load = (f"mem_set={arguments.set} mem_rate={arguments.rate} mem_pattern=random disk=journal disk_qd=2 disk_rate=200 disk_span=8M "
            f"out=virtio report_ms={arguments.report_ms}")
    results = {name: [] for name in VARIANTS}
    # One host at a time: on few processors two guests would take each other's.
    for block in range(arguments.blocks):
        for name in list(VARIANTS)[block % 3:] + list(VARIANTS)[:block % 3]:
            host = Host(name, arguments.memory, load)
            try:
                host.hop()  # warms caches; not counted
                for _ in range(-(-arguments.runs // arguments.blocks)):
                    report, speeds = host.hop()
                    confined = report["service_partition"]["confined"]
                    if report["outcome"] != "done" or confined != (name != "ordinary"):
                        raise RuntimeError(f"exchange: {report}")
                    results[name].append({"blackout_us": report["blackout_us"], "prepare_ms":
                                          report["phases_us"]["prepare"] / 1e3, "sync_ms": report["phases_us"]["sync"] / 1e3,
                                          "warmed_mib": report["warmed_bytes"] / (1 << 20),
                                          "second_level": report["second_level_warmed"], **speeds})
            finally:
                host.close()
    return results


def main():
    parser = measuring.options(__doc__.split("\n", maxsplit=1)[0], 15)
    parser.add_argument("--memory", default="256M")
    parser.add_argument("--set", default="64M", help="the guest's working set")
    parser.add_argument("--rate", type=int, default=0, help="pages the guest writes per second, 0: as fast as it can")
    parser.add_argument("--report-ms", type=int, default=20, help="how often the guest counts")
    parser.add_argument("--blocks", type=int, default=3, help="how often the hosts take turns")
    arguments = parser.parse_args()
    results = measure(arguments)
    keys = ("blackout_us", "prepare_ms", "sync_ms", "first_100_ms", "first_s", "preparing")
    document = {"load": {"memory": arguments.memory, "set": arguments.set, "rate": arguments.rate}, "raw": results}
    rows = []
    for name, runs in results.items():
        summaries = {key: measuring.summary([run[key] for run in runs]) for key in keys}
        document[name] = summaries
        rows.append([name, *[summaries[key]["median"] for key in keys], summaries["blackout_us"]["max"], len(runs)])
    measuring.table("medians; speeds against before", ["", "blackout us", "prepare ms", "sync ms", "first 100 ms", "first s",
                                                       "preparing", "blackout max", "n"], rows)
    measuring.finish("service_partition", document, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
