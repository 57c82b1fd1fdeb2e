"""Drives godwit-vmm processes over their control sockets, without godwitd, and listens to beacon.

A test gets a scratch directory of its own; everything in it and every process started is gone afterwards.
"""

import array
import json
import os
import pathlib
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("GODWIT_BIN", ROOT / "build/release/bin"))
BEACON = pathlib.Path(os.environ.get("GODWIT_BEACON", BIN / "beacon"))
sys.path.insert(0, str(ROOT / "guests/beacon/tools"))

VMM_OLD = BIN / "godwit-vmm"
VMM_NEW = BIN / "godwit-vmm-next"


class ControlError(Exception):
    """The VMM answered a request with an error."""

    def __init__(self, error):
        super().__init__(f"{error['code']}: {error['message']}")
        self.code = error["code"]
        self.message = error["message"]


class Vmm:
    """One godwit-vmm process and its control connection."""

    def __init__(self, directory, name, program, source, environment=None, pass_fds=()):
        self.instance = f"{secrets.randbits(32) | 1:08x}"
        self.directory = pathlib.Path(directory)
        machine_directory = self.directory / "machines" / name
        machine_directory.mkdir(parents=True, exist_ok=True)
        self.path = machine_directory / f"vmm-{self.instance}.sock"
        self.log = open(machine_directory / "vmm.log", "ab")
        ready_read, ready_write = os.pipe()
        self.process = subprocess.Popen(
            [str(program), "--machine", name, "--run-dir", str(directory), "--instance", self.instance,
             "--ready-fd", str(ready_write), *source],
            pass_fds=(ready_write, *pass_fds), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            start_new_session=True, env={**os.environ, **(environment or {})})
        os.close(ready_write)
        with os.fdopen(ready_read) as ready:
            readable, _, _ = select.select([ready], [], [], 30)
            line = ready.readline() if readable else ""
        self.ready = json.loads(line) if line else {"error": {"code": "peer_closed", "message": "died"}}
        self.socket = None
        self.next_id = 1
        self.events = []

    def connect(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(60)
        self.socket.connect(str(self.path))

    def send(self, method, fds=(), **params):
        if self.socket is None:
            self.connect()
        identity = self.next_id
        self.next_id += 1
        message = json.dumps({"id": identity, "method": method, "params": params}).encode()
        socket.send_fds(self.socket, [message], list(fds))
        return identity

    def wait_for(self, identity):
        while True:
            data = self.socket.recv(1 << 20)
            if not data:
                raise ControlError({"code": "peer_closed", "message": "the VMM closed its control socket"})
            message = json.loads(data)
            if "event" in message:
                self.events.append(message)
                continue
            if message.get("id") == identity:
                if "error" in message:
                    raise ControlError(message["error"])
                return message["result"]

    def call(self, method, fds=(), **params):
        return self.wait_for(self.send(method, fds, **params))

    def wait_end(self, timeout=20):
        return self.process.wait(timeout)

    def alive(self):
        return self.process.poll() is None

    def kill(self):
        if self.alive():
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.socket:
            self.socket.close()
        self.log.close()


class Console:
    """A client of a console socket that collects lines and types commands."""

    def __init__(self, path):
        self.path = str(path)
        self.raw = b""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(self.path)

    def read_until(self, wanted, timeout=30.0, start=0):
        """Waits for an event of this name after line `start`; returns it and the index of the next line."""
        deadline = time.monotonic() + timeout
        while True:
            lines = self.raw.split(b"\n")[:-1]
            for index in range(start, len(lines)):
                event = parse_line(lines[index])
                if event and (event.get("event") == wanted):
                    return event, index + 1
            left = deadline - time.monotonic()
            if left <= 0:
                raise AssertionError(f"no '{wanted}' within {timeout} s; last lines: {lines[-3:]}")
            readable, _, _ = select.select([self.socket], [], [], left)
            if readable:
                data = self.socket.recv(65536)
                if not data:
                    raise AssertionError(f"the console closed before '{wanted}'; last lines: {lines[-3:]}")
                self.raw += data

    def lines(self):
        return len(self.raw.split(b"\n")) - 1

    def type(self, text):
        self.socket.sendall(text.encode() + b"\n")

    def ask(self, command, answer, timeout=60.0):
        """Types a control line and returns beacon's answer to it."""
        start = self.lines()
        self.type(command)
        return self.read_until(answer, timeout, start)[0]

    def drain(self, timeout=5.0):
        """Reads to the end of the stream."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            readable, _, _ = select.select([self.socket], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                return
            data = self.socket.recv(65536)
            if not data:
                return
            self.raw += data


def parse_line(line):
    try:
        return json.loads(line[line.index(b"{"):])
    except ValueError:
        return None


class MachineTest(unittest.TestCase):
    """A scratch run directory, and machines made of beacon."""

    def setUp(self):
        self.assertTrue(os.access("/dev/kvm", os.R_OK | os.W_OK), "no usable /dev/kvm: this test needs it")
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="godwit-test-"))
        self.vmms = []

    def tearDown(self):
        for vmm in self.vmms:
            vmm.kill()
        failed = any(error for _, error in getattr(self._outcome, "errors", []) if error) if hasattr(
            self._outcome, "errors") else False
        if failed or (hasattr(self._outcome, "result") and self._outcome.result and (
                self._outcome.result.failures or self._outcome.result.errors)):
            for log in self.directory.glob("machines/*/vmm.log"):
                sys.stderr.write(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}\n")
        shutil.rmtree(self.directory, ignore_errors=True)

    def disk(self, name="disk.raw", mebibytes=64):
        path = self.directory / name
        with open(path, "wb") as file:
            file.truncate(mebibytes << 20)
        return path

    def document(self, command_line, name="m", vcpus=2, memory_mebibytes=256, disks=(), **more):
        return {
            "name": name,
            "id": str(uuid.uuid4()),
            "vcpus": vcpus,
            "memory": {"bytes": memory_mebibytes << 20},
            "kernel": {"path": str(BEACON), "command_line": command_line},
            "disks": [{"path": str(path)} for path in disks],
            **more,
        }

    def start(self, document, program=VMM_OLD, expect_error=False, environment=None):
        spec = self.directory / f"spec-{len(self.vmms)}.json"
        spec.write_text(json.dumps(document))
        vmm = Vmm(self.directory, document["name"], program, ["--spec", str(spec)], environment)
        self.vmms.append(vmm)
        if not expect_error:
            self.assertEqual(vmm.ready, {"ok": True}, vmm.ready)
            vmm.call("subscribe")
        return vmm

    def restore(self, snapshot, name="m", program=VMM_OLD, copy_ram=False):
        source = ["--restore", str(snapshot)] + (["--copy-ram"] if copy_ram else [])
        vmm = Vmm(self.directory, name, program, source)
        self.vmms.append(vmm)
        return vmm

    def console(self, name="m", port="serial"):
        return Console(self.directory / "machines" / name / f"console-{port}.sock")

    def successor(self, name="m", program=VMM_NEW, environment=None):
        """Starts a successor; returns it and the socket for the source."""
        for_source, for_successor = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        vmm = Vmm(self.directory, name, program, ["--incoming-fd", str(for_successor.fileno())], environment,
                  pass_fds=(for_successor.fileno(),))
        for_successor.close()
        self.vmms.append(vmm)
        return vmm, for_source

    def exchange(self, source, program=VMM_NEW, environment=None, name="m", deadline_ms=3000, **more):
        """One exchange; returns the report and the successor."""
        successor, end = self.successor(name, program, environment)
        with end:
            identity = source.send("exchange", [end.fileno()], deadline_ms=deadline_ms, **more)
        return source.wait_for(identity), successor
