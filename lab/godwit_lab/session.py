"""Runs: restored hosts, their channels pumped by one select loop, ended by an event or a deadline."""

from __future__ import annotations

import fcntl
import os
import re
import selectors
import struct
import sys
import tarfile
import tempfile
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from .errors import EXIT_HOST_DIED, EXIT_TIMEOUT, LabError
from .frozen import Frozen
from .payload import Order, pack
from .qemu import SCRATCH_BYTES, SCRATCH_DISKS, Machine, boot_disks, close_disks, unnamed_file

_CHUNK = 1 << 16
_ESCAPE = 0x1D  # Ctrl-]


@dataclass
class Outcome:
    """How one run ended."""

    exit_code: int
    timed_out: bool = False
    message: str = ""
    console: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


class Ending:
    """A stream of a run that ends with a marker: what was written before the exit code may arrive after it,
    because a port takes bytes faster than its socket hands them on."""

    def __init__(self, marker: bytes) -> None:
        self._marker = marker
        self._held = b""
        self.ended = False

    def take(self, chunk: bytes) -> bytes:
        """The bytes that surely are the script's own; a possible beginning of the marker waits."""
        if self.ended:
            return b""
        data, found, _ = (self._held + chunk).partition(self._marker)
        self.ended = bool(found)
        held = 0 if found else next(
            (length for length in range(min(len(data), len(self._marker) - 1), 0, -1)
             if data.endswith(self._marker[:length])), 0)
        self._held = data[len(data) - held:]
        return data[:len(data) - held]

    def rest(self) -> bytes:
        """What was held back although no marker came."""
        held, self._held = self._held, b""
        return held


@dataclass
class HostRun:
    """One host of a session: its order, where its output goes, and how it stands."""

    frozen: Frozen
    order: Order
    sink: BinaryIO
    prefix: bytes = b""
    out: Path | None = None
    network: int | None = None
    scratch_sizes: Sequence[int] = ()
    machine: Machine | None = None
    outcome: Outcome | None = None
    _files: BinaryIO | None = None
    _endings: dict[str, Ending] = field(default_factory=dict)
    _exit_code: int | None = None
    _control: bytes = b""
    _line_started: bool = False
    _started: float = 0.0

    def start(self, folder: Path) -> None:
        """Restore the host and give it its order."""
        self._started = time.monotonic()
        self._files = tempfile.TemporaryFile(dir=folder)
        payload, size = pack(folder, self.order, self.frozen.assets)
        scratch = [unnamed_file(folder, size_of) for size_of in self.scratch_sizes]
        disks = boot_disks(folder, self.frozen.assets, payload, scratch)
        state = os.open(self.frozen.state, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.machine = Machine(self.frozen.variant, self.frozen.assets, self.frozen.ram, disks,
                                   frozen_state=state, network=self.network)
            self.machine.restore(state)
        finally:
            os.close(state)
            close_disks(disks)
        for name, disk_size in zip(SCRATCH_DISKS, self.scratch_sizes, strict=False):
            if disk_size != SCRATCH_BYTES:
                self.machine.resize_disk(name, disk_size)
        self._seconds = {"restored": time.monotonic() - self._started}
        token = os.urandom(16).hex().encode()
        self._endings = {name: Ending(b"\1" + token) for name in ("output", "files")}
        self.machine.channels["control"].sendall(b"run %d %d %s\n" % (size, round(time.time()), token))

    def on_output(self, chunk: bytes) -> None:
        """Pass the script's output on at once, each line marked when several hosts talk."""
        if self.prefix:
            marked = b"" if self._line_started else self.prefix
            self._line_started = not chunk.endswith(b"\n")
            body = chunk if self._line_started else chunk[:-1]
            chunk = marked + body.replace(b"\n", b"\n" + self.prefix) + (b"" if self._line_started else b"\n")
        self.sink.write(chunk)
        self.sink.flush()

    def on_script_output(self, chunk: bytes) -> None:
        """Output of the script, up to its marker."""
        if own := self._endings["output"].take(chunk):
            self.on_output(own)
        self._finish_if_complete()

    def on_files(self, chunk: bytes) -> None:
        """Keep the tar of result files until the run is over."""
        assert self._files is not None
        self._files.write(self._endings["files"].take(chunk))
        self._finish_if_complete()

    def on_control(self, chunk: bytes) -> None:
        """The agent's only message is the exit code."""
        self._control += chunk
        line, newline, _ = self._control.partition(b"\n")
        if newline and line.startswith(b"exit "):
            self._exit_code = int(line.split()[1])
            self._finish_if_complete()

    def _finish_if_complete(self) -> None:
        if self._exit_code is not None and all(ending.ended for ending in self._endings.values()):
            self.finish(Outcome(self._exit_code))

    def on_closed(self) -> None:
        """QEMU ended before the script did: a panic, a reset, or a script that powered off."""
        if self.outcome is None:
            self._drain()
            self.on_output(self._endings["output"].rest())
            self.finish(Outcome(EXIT_HOST_DIED, message="the lab host ended before the script did"))

    def finish(self, outcome: Outcome) -> None:
        """Record the end, once."""
        if self.outcome is not None:
            return
        assert self.machine is not None
        outcome.console = self.machine.console_text()
        outcome.seconds = {**self._seconds, "total": time.monotonic() - self._started}
        self.outcome = outcome

    def save_files(self) -> None:
        """Unpack what the script left in $LAB_OUT."""
        if self.out is None or self._files is None or self._files.tell() == 0:
            return
        self._files.seek(0)
        self.out.mkdir(parents=True, exist_ok=True)
        try:
            with tarfile.open(fileobj=self._files) as archive:
                # Refuses names outside the directory; Python 3.11.2 of Debian 12 may lack it.
                safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
                archive.extractall(self.out, **safely)  # type: ignore[arg-type]
        except tarfile.TarError as error:
            raise LabError(f"the files of the run are damaged: {error}") from error

    def close(self) -> None:
        """End the machine and drop everything temporary."""
        if self.machine is not None:
            self.machine.kill()
        if self._files is not None:
            self._files.close()

    def _drain(self) -> None:
        """Take what the sockets still hold; QEMU wrote it before the message that brought us here."""
        assert self.machine is not None
        for name, handler in (("output", self.on_script_output), ("files", self.on_files)):
            channel = self.machine.channels[name]
            channel.setblocking(False)
            with suppress(BlockingIOError, ConnectionError):
                while chunk := channel.recv(_CHUNK):
                    handler(chunk)


class Barrier:
    """Lets the hosts of one session wait for each other by name."""

    def __init__(self, hosts: Sequence[HostRun]) -> None:
        self._hosts = hosts
        self._partial: dict[int, bytes] = {}
        self._waiting: dict[bytes, list[HostRun]] = {}

    def on_sync(self, host: HostRun, chunk: bytes) -> None:
        """Answer all once the last one has named the barrier."""
        *lines, rest = (self._partial.get(id(host), b"") + chunk).split(b"\n")
        self._partial[id(host)] = rest
        for line in lines:
            arrived = self._waiting.setdefault(line, [])
            arrived.append(host)
            if len(arrived) >= len(self._hosts):
                for member in arrived:
                    assert member.machine is not None
                    member.machine.channels["sync"].sendall(b"go\n")
                del self._waiting[line]


def run(hosts: Sequence[HostRun], folder: Path, timeout: float | None, *, terminal: bool = False) -> None:
    """Start the hosts and serve them until each has an outcome. Always leaves no process behind."""
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        for host in hosts:
            host.start(folder)
        with selectors.DefaultSelector() as selector, _terminal_of(hosts[0], selector, terminal):
            _register(hosts, selector)
            _serve(hosts, selector, deadline, timeout)
        for host in hosts:
            host.save_files()
    finally:
        for host in hosts:
            host.close()


def _register(hosts: Sequence[HostRun], selector: selectors.BaseSelector) -> None:
    barrier = Barrier(hosts)
    for host in hosts:
        assert host.machine is not None
        handlers: dict[str, Callable[[bytes], None]] = {
            "output": host.on_script_output, "files": host.on_files, "control": host.on_control,
            "sync": lambda chunk, host=host: barrier.on_sync(host, chunk)}
        for name, handler in handlers.items():
            channel = host.machine.channels[name]
            selector.register(channel, selectors.EVENT_READ, (host, handler))


def _serve(hosts: Sequence[HostRun], selector: selectors.BaseSelector, deadline: float | None,
           timeout: float | None) -> None:
    while any(host.outcome is None for host in hosts):
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            for host in hosts:
                host.finish(Outcome(EXIT_TIMEOUT, True, f"the time limit of {timeout:g} s passed" + _stall(host)))
            return
        for key, _ in selector.select(left):
            host, handler = key.data
            if host is not None and host.outcome is not None:
                selector.unregister(key.fileobj)
                continue
            try:
                chunk = os.read(key.fd, _CHUNK)
            except ConnectionError:
                chunk = b""
            if chunk:
                handler(chunk)
            elif host is None:
                hosts[0].finish(Outcome(0, message="end of input"))
            else:
                host.on_closed()


def _stall(host: HostRun) -> str:
    """Tell a lost emulated CPU (README, known holes) from a script that is merely slow."""
    assert host.machine is not None
    stalled = re.search(r"rcu: INFO|soft lockup", host.machine.console_text())
    return "; a CPU of the lab host stood still, see lab/README.md, known holes" if stalled else ""


@contextmanager
def _terminal_of(host: HostRun, selector: selectors.BaseSelector, wanted: bool) -> Iterator[None]:
    """Join the host's terminal to ours; restore our settings whatever happens."""
    if not wanted:
        yield
        return
    assert host.machine is not None
    channel = host.machine.channels["terminal"]
    stdin = sys.stdin.fileno()
    saved = termios.tcgetattr(stdin) if os.isatty(stdin) else None

    def typed(chunk: bytes) -> None:
        if saved is not None and _ESCAPE in chunk:
            host.finish(Outcome(0, message="left by Ctrl-]"))
            return
        channel.sendall(chunk)

    def shown(chunk: bytes) -> None:
        # A terminal nobody has opened yet drops its input, so ours waits for the prompt.
        if stdin not in selector.get_map():
            selector.register(stdin, selectors.EVENT_READ, (None, typed))
        host.on_output(chunk)

    selector.register(channel, selectors.EVENT_READ, (host, shown))
    try:
        if saved is not None:
            tty.setraw(stdin, termios.TCSADRAIN)  # keep what was typed ahead
        yield
    finally:
        if saved is not None:
            termios.tcsetattr(stdin, termios.TCSADRAIN, saved)


def terminal_size() -> tuple[int, int]:
    """Rows and columns of our terminal, with the usual default where there is none."""
    with suppress(OSError):
        packed = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
        rows, columns, _, _ = struct.unpack("HHHH", packed)
        if rows and columns:
            return rows, columns
    return 24, 80
