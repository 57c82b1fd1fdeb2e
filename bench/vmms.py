"""The machines that are measured: the same guest under godwit-vmm and under QEMU, started directly."""

from __future__ import annotations

import json
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

from measuring import BINARIES

QEMU = shutil.which("qemu-system-x86_64") or "/usr/bin/qemu-system-x86_64"
BEACON = Path(os.environ.get("GODWIT_BEACON", BINARIES / "beacon"))
_LIMIT_S = 120.0


class Failed(Exception):
    """A machine did not do what the benchmark needs."""


class Stream:
    """Bytes of a console: waits for some text, or for an event of beacon or guestload."""

    def __init__(self, connection: socket.socket | None) -> None:
        self.socket = connection
        self.data = b""
        self._searched = 0

    def wait_bytes(self, wanted: bytes, limit_s: float = _LIMIT_S) -> float:
        """CLOCK_MONOTONIC when the text had come."""
        deadline = time.monotonic() + limit_s
        while wanted not in self.data:
            self._read(deadline, wanted.decode(errors="replace"))
        return time.monotonic()

    def wait_event(self, name: str, limit_s: float = _LIMIT_S) -> dict:
        """The next event of that name after those already taken."""
        deadline = time.monotonic() + limit_s
        while True:
            end = self.data.find(b"\n", self._searched)
            if end < 0:
                self._read(deadline, name)
                continue
            line, self._searched = self.data[self._searched:end], end + 1
            # A hand-over of QEMU may cut the line that was on its way; the next one follows the rest of it.
            start = line.rfind(b'{"n"')
            if start >= 0:
                event = json.loads(line[start:])
                if event["event"] == name:
                    return event

    def ask(self, command: str, event: str) -> dict:
        """A control line and its answer."""
        self.socket.sendall(command.encode() + b"\n")
        return self.wait_event(event)

    def drain(self) -> None:
        """Take what is there and count it as seen."""
        while select.select([self.socket], [], [], 0)[0]:
            data = self.socket.recv(65536)
            if not data:
                break
            self.data += data
        self._searched = self.data.rfind(b"\n") + 1

    def _read(self, deadline: float, what: str) -> None:
        ready, _, _ = select.select([self.socket], [], [], max(0.0, deadline - time.monotonic()))
        data = self.socket.recv(65536) if ready else b""
        if not data:
            raise Failed(f"no '{what}': {'the console ended' if ready else 'time limit'}; {self.data[-300:]!r}")
        self.data += data


def wait_connect(path: Path, process: subprocess.Popen, limit_s: float = 20.0) -> socket.socket | None:
    """Connect to a socket that is about to appear; None if its process has ended."""
    deadline = time.monotonic() + limit_s
    while process.poll() is None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(path))
            return connection
        except OSError:
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.0002)
    return None


def wait_listening(path: Path, process: subprocess.Popen, limit_s: float = 20.0) -> None:
    """Until somebody listens on a socket that is about to appear, without connecting to it."""
    deadline = time.monotonic() + limit_s
    accepts = 0x10000  # __SO_ACCEPTCON, include/linux/net.h
    while time.monotonic() < deadline and process.poll() is None:
        for line in Path("/proc/net/unix").read_text().splitlines():
            words = line.split()
            if words[-1] == str(path) and int(words[3], 16) & accepts:
                return
        time.sleep(0.001)
    raise Failed(f"nobody listens on {path}")


class Guest:
    """What runs: kernel, command line, sizes. The same for both monitors."""

    def __init__(self, command_line: str, kernel: Path = BEACON, initrd: Path | None = None, memory_mib: int = 256,
                 cpus: int = 1, disk: Path | None = None, tap: str | None = None, queues: int = 1) -> None:
        self.command_line, self.kernel, self.initrd = command_line, kernel, initrd
        self.memory_mib, self.cpus, self.disk, self.tap = memory_mib, cpus, disk, tap
        self.queues = queues


class Vmm:
    """A started monitor process; a context that ends it."""

    process: subprocess.Popen
    serial: Stream
    started: float

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="godwit-bench-"))

    def __enter__(self):
        return self

    def __exit__(self, *_reason) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # both end at once, and give their locks back first
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if hasattr(self, "serial") and self.serial.socket is not None:
            self.serial.socket.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Godwit(Vmm):
    """godwit-vmm without godwitd, as the daemon would start it."""

    def __init__(self, guest: Guest, program: Path | None = None) -> None:
        super().__init__()
        self.name = "bench"
        machine = self.folder / "machines" / self.name
        machine.mkdir(parents=True)
        spec = self.folder / "spec.json"
        spec.write_text(json.dumps(self._document(guest)))
        self._start(program or BINARIES / "godwit-vmm", ["--spec", str(spec)])
        try:
            # Connected while it starts: the first byte must not wait for us.
            self.serial = Stream(wait_connect(machine / "console-serial.sock", self.process))
            self._wait_ready()
        except BaseException:
            self.__exit__()
            raise

    @staticmethod
    def _document(guest: Guest) -> dict:
        document = {"name": "bench", "id": str(uuid.uuid4()), "vcpus": guest.cpus, "memory": {"bytes": guest.memory_mib << 20},
                    "kernel": {"path": str(guest.kernel), "command_line": guest.command_line}}
        if guest.initrd:
            document["kernel"]["initrd"] = str(guest.initrd)
        if guest.disk:
            document["disks"] = [{"path": str(guest.disk), "queues": guest.queues}]
        if guest.tap:
            document["nets"] = [{"tap": guest.tap}]
        return document

    def _start(self, program: Path, source: list, pass_fds: tuple = ()) -> None:
        self.instance = f"{secrets.randbits(32) | 1:08x}"
        self._ready, ready = os.pipe()
        self.log = open(self.folder / "vmm.log", "ab")
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [str(program), "--machine", self.name, "--run-dir", str(self.folder), "--instance", self.instance,
             "--ready-fd", str(ready), *source], pass_fds=(ready, *pass_fds), stdin=subprocess.DEVNULL,
            stdout=self.log, stderr=self.log)
        os.close(ready)
        self.control = None
        self._next_id = 1

    def _wait_ready(self) -> None:
        line = b""
        while not line.endswith(b"\n") and select.select([self._ready], [], [], 30)[0]:
            piece = os.read(self._ready, 4096)
            if not piece:
                break
            line += piece
        self.ready_at = time.monotonic()
        os.close(self._ready)
        if b'"ok"' not in line:
            raise Failed(f"godwit-vmm: {line!r} {(self.folder / 'vmm.log').read_text()[-500:]}")

    def call(self, method: str, fds: tuple = (), **params):
        """A control request and its result."""
        if self.control is None:
            self.control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.control.settimeout(_LIMIT_S)
            self.control.connect(str(self.folder / "machines" / self.name / f"vmm-{self.instance}.sock"))
        identity, self._next_id = self._next_id, self._next_id + 1
        socket.send_fds(self.control, [json.dumps({"id": identity, "method": method, "params": params}).encode()],
                        list(fds))
        while True:
            answer = json.loads(self.control.recv(1 << 20) or b'{"id": 0, "error": "closed"}')
            if "event" not in answer:
                if "error" in answer:
                    raise Failed(f"{method}: {answer['error']}")
                return answer["result"]

    def exchange(self, program: Path) -> dict:
        """Hand the machine to a new process; afterwards this object is that process. Gives the report."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        old, old_call, old_log = self.process, self.call, self.log
        old_state = (self.control, self.instance, self._next_id)
        self._start(program, ["--incoming-fd", str(theirs.fileno())], (theirs.fileno(),))
        theirs.close()
        self._wait_ready()
        fresh = (self.control, self.instance, self._next_id)
        self.control, self.instance, self._next_id = old_state
        with ours:
            report = old_call("exchange", (ours.fileno(),), deadline_ms=10000)
        if self.control is not None:
            self.control.close()
        self.control, self.instance, self._next_id = fresh
        old.wait(timeout=30)
        old_log.close()
        return report

    def __exit__(self, *reason) -> None:
        super().__exit__(*reason)
        if self.control is not None:
            self.control.close()
        self.log.close()


class Qmp:
    """Client of QEMU's machine protocol; events are kept with the time they were read."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rw")
        self._connection = connection
        self.events: list = []
        self._read()
        self.command("qmp_capabilities")

    def command(self, name: str, **arguments):
        """Run one command and give its result."""
        self._file.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self._file.flush()
        while True:
            answer = self._read()
            if "error" in answer:
                raise Failed(f"QEMU refused {name}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def wait_event(self, name: str, status: str | None = None) -> dict:
        """The first event of that name (and status) that was not taken yet."""
        while True:
            for event in self.events:
                if event["event"] == name and status in (None, event.get("data", {}).get("status")):
                    self.events.remove(event)
                    return event
                if event.get("data", {}).get("status") == "failed":
                    raise Failed(f"QEMU: {event}")
            self._read()

    def _read(self) -> dict:
        line = self._file.readline()
        if not line:
            raise Failed("QEMU ended")
        message = json.loads(line)
        if "event" in message:
            self.events.append(message)
        return message


class Qemu(Vmm):
    """Debian's QEMU with KVM. machine: "q35" or "microvm"."""

    def __init__(self, guest: Guest, machine: str = "q35", ram: list | None = None, incoming: list | None = None,
                 block: str = "aio=io_uring,cache=none", program: str | Path = QEMU) -> None:
        """`ram`: options that give the memory back end. `incoming`: options of the receiving end of a hand-over."""
        super().__init__()
        ours, theirs = socket.socketpair()
        qmp_ours, qmp_theirs = socket.socketpair()
        command = [str(program), *self._command(guest, machine, ram, block)]
        command += ["-chardev", f"socket,id=serial,fd={theirs.fileno()}", "-serial", "chardev:serial"]
        command += ["-chardev", f"socket,id=qmp,fd={qmp_theirs.fileno()}", "-mon", "chardev=qmp,mode=control"]
        command += incoming or []
        self.complaints = open(self.folder / "stderr", "wb")
        self.started = time.monotonic()
        self.process = subprocess.Popen(command, pass_fds=(theirs.fileno(), qmp_theirs.fileno()),
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.complaints)
        theirs.close()
        qmp_theirs.close()
        self.serial = Stream(ours)
        self._qmp_socket = qmp_ours
        self._qmp: Qmp | None = None

    @property
    def qmp(self) -> Qmp:
        """Connected on first use, so that starting is not slowed by it."""
        if self._qmp is None:
            self._qmp = Qmp(self._qmp_socket)
        return self._qmp

    @staticmethod
    def _command(guest: Guest, machine: str, ram: list | None, block: str) -> list:
        command = ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-accel", "kvm",
                   "-cpu", "host", "-smp", str(guest.cpus), "-m", f"{guest.memory_mib}M", "-kernel", str(guest.kernel),
                   "-append", guest.command_line]
        features = {"microvm": "microvm,acpi=on,rtc=on,pic=on,pit=on,pcie=on", "q35": "q35"}[machine]
        command += ["-machine", features + (",memory-backend=ram" if ram else ""), *(ram or [])]
        if guest.initrd:
            command += ["-initrd", str(guest.initrd)]
        if guest.disk:
            command += ["-drive", f"file={guest.disk},format=raw,if=none,id=disk,{block}", "-device",
                        f"virtio-blk-pci,drive=disk,disable-legacy=on,num-queues={guest.queues}"]
        if guest.tap:
            command += ["-netdev", f"tap,id=net,ifname={guest.tap},script=no,downscript=no", "-device",
                        "virtio-net-pci,netdev=net,disable-legacy=on,romfile="]
        return command

    def complaint(self) -> str:
        """What QEMU printed."""
        return (self.folder / "stderr").read_text(errors="replace")

    def __exit__(self, *reason) -> None:
        super().__exit__(*reason)
        self._qmp_socket.close()
        self.complaints.close()
