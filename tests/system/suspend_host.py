"""A godwitd of its own with beacon machines and two installations to exchange it between."""

import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import time

from vmm_harness import BIN, MachineTest

LOAD = "mem_set=16M mem_rate=4000 disk=journal disk_qd=2 disk_pattern=random disk_flush=8 disk_rate=60 report_ms=200"
PATIENCE_S = 60


def cmdline(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def storage_bytes(pid):
    """What this process has caused to be read from and written to storage."""
    lines = pathlib.Path(f"/proc/{pid}/io").read_text().splitlines()
    counters = dict(line.split(": ") for line in lines)
    return int(counters["read_bytes"]) + int(counters["write_bytes"])


def memory_objects(pids):
    """Sizes in KiB of the memory objects these processes hold, by inode: what they are charged for."""
    sizes = {}
    for pid in pids:
        for entry in pathlib.Path(f"/proc/{pid}/fd").glob("*"):
            try:
                if os.readlink(entry).startswith("/memfd:"):
                    status = entry.stat()
                    sizes[status.st_ino] = status.st_blocks // 2
            except OSError:
                pass  # It was closed, or the process ended, while we looked.
    return sizes


class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE_S)
        self.unix_path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.unix_path)


class SuspendHost(MachineTest):
    def setUp(self):
        super().setUp()
        self.old = self.installation("a", "godwitd", "godwit-vmm")
        self.new = self.installation("b", "godwitd-next", "godwit-vmm-next")
        self.daemon = None
        self.consoles = {}
        self.addCleanup(self.clean)

    def installation(self, name, daemon, vmm):
        programs = self.directory / name / "bin"
        programs.mkdir(parents=True)
        (programs / "godwitd").symlink_to(BIN / daemon)
        (programs / "godwit-vmm").symlink_to(BIN / vmm)
        return programs.parent

    def faulty(self, name, machine, fault, base="godwit-vmm-next"):
        """An installation whose VMM has a fault for one machine, as long as the file it gives back exists."""
        place = self.installation(name, "godwitd-next", "godwit-vmm-next")
        flag = self.directory / f"{name}.flag"
        flag.touch()
        program = place / "bin/godwit-vmm"
        program.unlink()
        program.write_text(
            f'#!/bin/sh\ncase "$*" in *"--machine {machine} "*) [ -e {flag} ] && export GODWIT_FAULT={fault};; esac\n'
            f'exec {BIN / base} "$@"\n')
        program.chmod(0o755)
        return place, flag

    def clean(self):
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self.daemon is not None:
            self.daemon.wait()

    def processes(self, word=""):
        """Living processes of this run directory whose command line has `word`."""
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            text = cmdline(entry.name)
            if str(self.directory) in text and word in text and int(entry.name) != os.getpid() and alive(entry.name):
                found.append(int(entry.name))
        return found

    def shared_memory_kib(self):
        return sum(memory_objects(self.processes()).values())

    def start_daemon(self, fault=None, place=None):
        environment = dict(os.environ, GODWIT_RUN_DIR=str(self.directory), GODWIT_KEEPER=str(BIN / "godwit-keeper"))
        if fault:
            environment["GODWIT_FAULT"] = fault
        reader, writer = os.pipe()
        with open(self.directory / "godwitd.log", "ab") as log:
            self.daemon = subprocess.Popen(
                [(place or self.old) / "bin/godwitd", "--run-dir", str(self.directory), "--ready-fd", str(writer),
                 "--vmm", str((place or self.old) / "bin/godwit-vmm")],
                env=environment, pass_fds=[writer], stderr=log, stdout=log)
        os.close(writer)
        with os.fdopen(reader) as ready:
            line = ready.readline()
        self.assertTrue(line and json.loads(line).get("ok"), (self.directory / "godwitd.log").read_text()[-2000:])

    def restart_daemon(self):
        """The same run directory under a godwitd without faults."""
        if self.daemon.poll() is None:
            self.daemon.kill()
        self.daemon.wait()
        self.start_daemon()

    def environment(self):
        return dict(os.environ, GODWIT_RUN_DIR=str(self.directory), GODWITD=str(self.old / "bin/godwitd"),
                    GODWIT_VMM=str(self.old / "bin/godwit-vmm"), GODWIT_KEEPER=str(BIN / "godwit-keeper"))

    def godwit_in_background(self, *arguments):
        return subprocess.Popen([BIN / "godwit", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                env=self.environment())

    def godwit(self, *arguments, code=0):
        done = subprocess.run([BIN / "godwit", *arguments], capture_output=True, text=True, check=False, timeout=120,
                              env=self.environment())
        if code is not None:
            self.assertEqual(done.returncode, code, done.stdout + done.stderr + self.logs())
        return done

    def logs(self):
        text = (self.directory / "godwitd.log").read_text(errors="replace")[-3000:]
        for log in self.directory.glob("machines/*/vmm.log"):
            text += f"\n--- {log.parent.name}\n" + log.read_text(errors="replace")[-2500:]
        return text

    def reached(self, point):
        """Whether a process has come to this fault point, by the line it leaves."""
        line = f'"point":"{point}"'
        logs = [self.directory / "godwitd.log", *self.directory.glob("machines/*/vmm.log")]
        return any(line in log.read_text(errors="replace") for log in logs)

    def ask(self, path):
        connection = Unix(self.directory / "godwitd.sock")
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def machines(self):
        return {machine["name"]: machine for machine in self.ask("/api/v1/machines")["machines"]}

    def run_machines(self, count, load=LOAD, memory=64, disks=True):
        for number in range(1, count + 1):
            name = f"m{number}"
            document = self.document(load, name=name, vcpus=1, memory_mebibytes=memory,
                                     disks=[self.disk(f"{name}.raw", 8)] if disks else [])
            connection = Unix(self.directory / "godwitd.sock")
            connection.request("POST", "/api/v1/machines", json.dumps(document))
            answer = connection.getresponse()
            self.assertEqual(answer.status, 201, answer.read())
            connection.close()
            self.consoles[name] = self.console(name)
        for console in self.consoles.values():
            console.read_until("populated")

    def suspend(self, place, *more, code=0):
        done = self.godwit("exchange", "--all", "--mode", "suspend", "--to", str(place), "--json", *more, code=code)
        return json.loads(done.stdout) if done.stdout.strip() else {}

    def runs(self, name):
        console = self.consoles[name]
        console.read_until("report", 30, console.lines())

    def content(self, name):
        """The guest checks everything it has and powers off."""
        console = self.consoles[name]
        start = console.lines()
        console.type("stop")
        final, _ = console.read_until("final", 60, start)
        self.assertTrue(final["ok"], final)
        self.assertEqual(final["errors"], 0)
        self.assertGreater(final["pages_verified"], 0)

    def wait_for(self, condition, what):
        end = time.monotonic() + PATIENCE_S
        while not condition():
            self.assertLess(time.monotonic(), end, what + self.logs())
            time.sleep(0.05)  # Only the kernel knows, and it does not tell.

    def settled(self):
        """Every machine's state, once nothing is under way any more."""
        self.wait_for(lambda: all(m["state"] in ("running", "paused", "frozen") for m in self.machines().values()),
                      "machines come to no rest")
        return {name: machine["state"] for name, machine in self.machines().items()}
