"""One QEMU process that emulates a lab host.

Everything QEMU needs is handed over as an inherited descriptor: channels are socket pairs, disks are
unnamed files. So there is nothing to clean up on disk, whoever is killed in whatever order, and the
emulator dies with its parent (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import tsc
from .errors import EXIT_SETUP, LabError
from .layout import Variant
from .rootfs import Assets
from .tools import find

# Less to do for an emulated CPU: no mitigations, self tests, entropy wait, audit or page poisoning;
# no TSC and timer calibration, which may fail under load; expedited RCU so that loading modules does
# not wait. panic=-1 with -no-reboot turns a panic into the end of the process.
KERNEL_COMMAND_LINE = (
    "console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=reliable no_timer_check "
    "cryptomgr.notests random.trust_cpu=on audit=0 apparmor=0 rcupdate.rcu_expedited=1 "
    "8250.nr_uarts=1 init_on_alloc=0")

# Without ERMS and FSRM the kernel and libc copy and clear memory by words: QEMU executes "rep movsb" and
# "rep stosb" a byte at a time, at 11 and 25 MB/s, but "rep stosq" at over 1 GB/s.
# Family 23 (Zen): "max" is a K8, on which a kernel looks for a GART on 256 PCI buses, 16000 exits of a guest.
CPU_MODEL = "max,+svm,-erms,-fsrm,family=23,model=49,stepping=0"

# Channels between the tool and the agent, each a virtio-serial port. "terminal" is the host's hvc0.
CHANNELS = ("control", "output", "files", "sync")
# Capacities the frozen kernel has seen. Files are sparse, so a generous payload limit is free.
PAYLOAD_BYTES = 16 << 30
SCRATCH_BYTES = 2 << 30
SCRATCH_DISKS = ("scratch", "scratch2")
_PR_SET_PDEATHSIG = 1
_QMP_TIMEOUT_S = 60.0


class Qmp:
    """Client of QEMU's machine protocol on a connected socket: commands in order, events kept."""

    def __init__(self, channel: socket.socket) -> None:
        channel.settimeout(_QMP_TIMEOUT_S)
        self._channel = channel
        self._lines = channel.makefile("r")
        self._events: list[dict[str, object]] = []
        self._read()  # greeting
        self.command("qmp_capabilities")

    def command(self, name: str, **arguments: object) -> object:
        """Run one command and give its result."""
        request = json.dumps({"execute": name, "arguments": arguments})
        self._channel.sendall(request.encode())
        while True:
            answer = self._read()
            if "error" in answer:
                raise LabError(f"QEMU refused {name}: {answer['error']['desc']}")  # type: ignore[index]
            if "return" in answer:
                return answer["return"]
            self._events.append(answer)

    def wait_migration(self) -> None:
        """Wait for the event that says the device state has been written or read."""
        while True:
            event = self._events.pop(0) if self._events else self._read()
            status = event.get("data", {}).get("status") if event.get("event") == "MIGRATION" else None
            if status == "completed":
                return
            if status == "failed":
                raise LabError("QEMU could not transfer the frozen state: lab/lab clean, then prepare again")

    def _read(self) -> dict[str, object]:
        try:
            line = self._lines.readline()
        except TimeoutError:
            raise LabError(f"QEMU did not answer within {_QMP_TIMEOUT_S:.0f} s") from None
        if not line:
            raise LabError("QEMU ended unexpectedly")
        return json.loads(line)


@dataclass
class Disks:
    """Descriptors of a host's disks; the host owns copies of its own."""

    image: int
    payload: int
    scratch: list[int]


def unnamed_file(folder: Path, size: int) -> int:
    """A sparse file without a name: gone when its last descriptor is closed."""
    fd = os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    os.ftruncate(fd, size)
    return fd


class Machine:
    """A started QEMU with its channels. One thread uses it; `kill` may be called at any time."""

    def __init__(self, variant: Variant, assets: Assets, ram: Path, disks: Disks, *,
                 frozen_state: int | None = None, network: int | None = None) -> None:
        """Start QEMU paused on `frozen_state`, or booting from scratch if there is none.

        Memory is mapped private when restoring: any number of copies can use one file.
        `network` is a connected socket that carries Ethernet frames, or None for a NIC without a link.
        """
        self.console = os.memfd_create("lab-console")
        self.channels: dict[str, socket.socket] = {}
        self._passed: list[int] = []
        self._ends: list[socket.socket] = []
        command = self._command(variant, assets, ram, disks, frozen_state, network)
        self.process = self._start(command)
        for end in self._ends:
            end.close()
        self._ends.clear()
        try:
            self.qmp = Qmp(self._qmp_channel)
        except LabError as error:
            raise self._startup_error(error) from error

    def restore(self, state: int) -> None:
        """Load the frozen device state and let the machine run."""
        self._enable_transfer()
        self.qmp.command("migrate-incoming", uri=f"fd:{state}")
        self.qmp.wait_migration()
        self.qmp.command("cont")

    def freeze(self, state: Path) -> None:
        """Stop the machine and write its device state; memory is in its file already."""
        self.qmp.command("stop")
        self._enable_transfer()
        self.qmp.command("migrate", uri=f"exec:cat > '{state}'")
        self.qmp.wait_migration()

    def resize_disk(self, name: str, size: int) -> None:
        """Tell the running host that a scratch disk has another size than when it was frozen."""
        self.qmp.command("block_resize", device=name, size=size)

    def console_text(self) -> str:
        """What the host's kernel has printed."""
        size = os.fstat(self.console).st_size
        return os.pread(self.console, size, 0).decode(errors="replace")

    def kill(self) -> None:
        """End QEMU and release everything."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for channel in (*self.channels.values(), self._qmp_channel):
            channel.close()
        if self.console >= 0:
            os.close(self.console)
            self.console = -1

    def _enable_transfer(self) -> None:
        self.qmp.command("migrate-set-capabilities", capabilities=[
            {"capability": "x-ignore-shared", "state": True}, {"capability": "events", "state": True}])

    def _startup_error(self, error: LabError) -> LabError:
        self.process.kill()
        complaint = self.process.communicate()[1].decode(errors="replace").strip()
        self.kill()
        return LabError(f"{error}: {complaint or 'no reason given'}", EXIT_SETUP)

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, pass_fds=self._passed,
                                preexec_fn=_die_with_parent(os.getpid()))

    def _chardev(self, name: str) -> list[str]:
        ours, theirs = socket.socketpair()
        self._ends.append(theirs)
        self._passed.append(theirs.fileno())
        if name == "qmp":
            self._qmp_channel = ours
        else:
            self.channels[name] = ours
        return ["-chardev", f"socket,id={name},fd={theirs.fileno()}"]

    def _path(self, fd: int) -> str:
        self._passed.append(fd)
        return f"/proc/self/fd/{fd}"

    def _disk(self, name: str, fd: int, options: str) -> list[str]:
        return ["-drive", f"if=none,id={name},format=raw,file.locking=off,file={self._path(fd)},{options}",
                "-device", f"virtio-blk-pci,drive={name},serial={name}"]

    def _command(self, variant: Variant, assets: Assets, ram: Path, disks: Disks,
                 frozen_state: int | None, network: int | None) -> list[str]:
        """The same devices in the same order for freezing and restoring; only back ends differ."""
        qemu = find("qemu-system-x86_64")
        if qemu is None:
            raise LabError("QEMU is missing: apt-get install qemu-system-x86", EXIT_SETUP)
        threads = "multi" if variant.cpus > 1 else "single"
        share = "on" if frozen_state is None else "off"
        command = [
            qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-cpu", CPU_MODEL, "-accel", f"tcg,thread={threads},tb-size=512",
            "-smp", str(variant.cpus), "-m", str(variant.memory_mib),
            "-object", f"memory-backend-file,id=ram,size={variant.memory_mib}M,mem-path={ram},share={share}",
            "-machine", "q35,memory-backend=ram",
            "-kernel", str(assets.vmlinux), "-initrd", str(assets.host_initramfs),
            "-append", KERNEL_COMMAND_LINE + (f" tsc_early_khz={tsc.khz()}" if frozen_state is None else ""),
            # A new id in every process: the kernel reseeds its random numbers when it sees it change.
            "-device", "vmgenid,guid=auto",
            "-chardev", f"file,id=console,path={self._path(self.console)}", "-serial", "chardev:console",
            *self._chardev("qmp"), "-mon", "chardev=qmp,mode=control",
            "-device", "virtio-serial-pci",
            *self._chardev("terminal"), "-device", "virtconsole,chardev=terminal",
        ]
        for name in CHANNELS:
            command += [*self._chardev(name), "-device", f"virtserialport,chardev={name},name=lab.{name}"]
        command += self._disk("image", disks.image, "readonly=on")
        command += self._disk("payload", disks.payload, "readonly=on")
        for name, fd in zip(SCRATCH_DISKS, disks.scratch, strict=True):
            # Throwaway data: a flush need not reach the medium.
            command += self._disk(name, fd, "cache=unsafe,discard=unmap")
        if network is None:
            command += ["-netdev", "hubport,id=net,hubid=0"]
        else:
            self._passed.append(network)
            command += ["-netdev", f"dgram,id=net,local.type=fd,local.str={network}"]
        command += ["-device", "virtio-net-pci,netdev=net,romfile="]
        if frozen_state is not None:
            self._passed.append(frozen_state)
            command += ["-incoming", "defer"]
        return command


def _die_with_parent(parent: int) -> Callable[[], None]:
    """For the child between fork and exec: die when the tool dies, even if that happened just now."""
    libc = ctypes.CDLL(None, use_errno=True)

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # Ctrl-C is for the tool, which then ends the machine in its own way.
        os.setpgid(0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    return prepare


def boot_disks(folder: Path, assets: Assets, payload: int, scratch: list[int]) -> Disks:
    """Disks of one host; empty ones where the caller has nothing to give."""
    if payload < 0:
        payload = unnamed_file(folder, PAYLOAD_BYTES)
    while len(scratch) < len(SCRATCH_DISKS):
        scratch = [*scratch, unnamed_file(folder, SCRATCH_BYTES)]
    return Disks(os.open(assets.image, os.O_RDONLY | os.O_CLOEXEC), payload, scratch)


def close_disks(disks: Disks) -> None:
    """Close the tool's own descriptors once QEMU has opened the files."""
    for fd in (disks.image, disks.payload, *disks.scratch):
        os.close(fd)

