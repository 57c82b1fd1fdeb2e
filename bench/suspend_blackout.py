#!/usr/bin/env python3
"""The pause of a whole host exchanged in suspend mode: many machines against one alone, and against RAM size.

Every machine is beacon with 1 vCPU, a working set of half its RAM that it keeps writing to, and no disk. godwitd and
all VMMs are replaced by the other build and back (`godwit exchange --all --mode suspend`). Measured is blackout_us
of the slowest machine in the report: last vCPU out at the old VMM until first vCPU in at the new one. Hosts with one
machine and with many alternate within every round.

    bench/suspend_blackout.py [--runs 15] [--machines 16] [--memory 256] [--save]
"""

import http.client
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import uuid

import measuring

BEACON = measuring.BINARIES / "beacon"


class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=120)
        self.unix_path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.unix_path)


class Host:
    """A godwitd with `count` machines, exchanged again and again."""

    def __init__(self, count, memory_mib):
        self.count = count
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="gws-"))
        self.places = [self._place("a", "godwitd", "godwit-vmm"), self._place("b", "godwitd-next", "godwit-vmm-next")]
        self.environment = dict(os.environ, GODWIT_RUN_DIR=str(self.directory),
                                GODWITD=str(self.places[0] / "bin/godwitd"),
                                GODWIT_KEEPER=str(measuring.BINARIES / "godwit-keeper"))
        reader, writer = os.pipe()
        with open(self.directory / "godwitd.log", "ab") as log:
            self.daemon = subprocess.Popen(
                [self.places[0] / "bin/godwitd", "--run-dir", str(self.directory), "--ready-fd", str(writer),
                 "--vmm", str(self.places[0] / "bin/godwit-vmm")],
                env=self.environment, pass_fds=[writer], stdout=log, stderr=log)
        os.close(writer)
        with os.fdopen(reader) as ready:
            ready.readline()
        self._number = 0
        for number in range(count):
            self._run(f"m{number}", memory_mib)

    def _place(self, name, daemon, vmm):
        programs = self.directory / name / "bin"
        programs.mkdir(parents=True)
        (programs / "godwitd").symlink_to(measuring.BINARIES / daemon)
        (programs / "godwit-vmm").symlink_to(measuring.BINARIES / vmm)
        return programs.parent

    def _run(self, name, memory_mib):
        connection = Unix(self.directory / "godwitd.sock")
        connection.request("POST", "/api/v1/machines", json.dumps({
            "name": name, "id": str(uuid.uuid4()), "vcpus": 1, "memory": {"bytes": memory_mib << 20},
            "kernel": {"path": str(BEACON), "command_line":
                       f"mem_set={memory_mib // 2}M mem_rate=2000 mem_pattern=hot report_ms=86400000"}}))
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 201:
            raise RuntimeError(body.decode())
        connection.close()
        console = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        console.connect(str(self.directory / "machines" / name / "console-serial.sock"))
        text = b""
        while b'"populated"' not in text:
            data = console.recv(65536)
            if not data:
                raise RuntimeError(f"{name} ended: {text[-300:]}")
            text += data
        console.close()

    def hop(self):
        self._number += 1
        done = subprocess.run(
            [measuring.BINARIES / "godwit", "exchange", "--all", "--mode", "suspend", "--to",
             str(self.places[self._number % 2]), "--json"],
            env=self.environment, capture_output=True, text=True, check=False)
        report = json.loads(done.stdout) if done.stdout.strip() else {}
        if done.returncode != 0 or report.get("outcome") != "done" or len(report["machines"]) != self.count:
            raise RuntimeError(done.stdout + done.stderr)
        return report

    def close(self):
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if str(self.directory).encode() in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                    os.kill(int(entry.name), 9)
            except OSError:
                pass
        self.daemon.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def parts_of(report):
    """Medians over the machines of each part of the blackout, and the host's own phases."""
    names = ("suspend", "kept", "commit", "resume")
    machines = {name: statistics.median(m["phases_us"][name] for m in report["machines"]) for name in names}
    return {"slowest_us": report["blackout_us"]["max"], "machines_median_us": machines, "host_us": report["phases_us"]}


def main():
    arguments = measuring.options(__doc__.split("\n", maxsplit=1)[0], 15)
    arguments.add_argument("--machines", type=int, default=16)
    arguments.add_argument("--memory", type=int, default=256, help="MiB each")
    options = arguments.parse_args()
    hosts = {}
    raw = {1: [], options.machines: []}
    try:
        for count in raw:
            hosts[count] = Host(count, options.memory)
        for _ in range(options.runs):
            for count, host in hosts.items():
                raw[count].append(parts_of(host.hop()))
    finally:
        for host in hosts.values():
            host.close()
    summary = {}
    for count, runs in raw.items():
        values = sorted(run["slowest_us"] for run in runs)
        summary[count] = {"p50_us": statistics.median(values), "max_us": values[-1], "runs": len(values)}
    ratio = summary[options.machines]["p50_us"] / summary[1]["p50_us"]
    print(json.dumps({"machines": summary, "ratio_p50": round(ratio, 2), "wanted_at_most": 3}, indent=1))
    measuring.finish("suspend_blackout", {"summary": summary, "ratio_p50": ratio, "raw": raw}, options)
    return 0 if ratio <= 3 else 1


if __name__ == "__main__":
    sys.exit(main())
