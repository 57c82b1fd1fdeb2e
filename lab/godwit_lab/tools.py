"""Programs of this machine that the laboratory uses or copies into its hosts."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .errors import EXIT_SETUP, LabError

# Program -> Debian package that brings it.
NEEDED = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "mke2fs": "e2fsprogs",
    "depmod": "kmod",
    "lz4": "lz4",
    "gcc": "gcc",
    "ldd": "libc-bin",
    "readelf": "binutils",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
}

# Copied into every lab host when present. fio and iperf3 also go into the guest.
HOST_PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "fio": "fio",
    "iperf3": "iperf3",
    "mke2fs": "e2fsprogs",
    "ip": "iproute2",
    "dash": "dash",
    "bash": "bash",
    "socat": "socat",
    "strace": "strace",
    "kexec": "kexec-tools",
    "ndctl": "ndctl",
}
OPTIONAL = {"qemu-img", "socat", "strace", "kexec", "ndctl"}


def find(program: str) -> str | None:
    """Absolute path of a program, also where root's PATH lacks the sbin directories."""
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
    return shutil.which(program, path=path)


def check_installed() -> None:
    """One message that names every missing package, not one message per attempt."""
    missing = {package for program, package in NEEDED.items() if not find(program)}
    missing |= {package for program, package in HOST_PROGRAMS.items()
                if program not in OPTIONAL and not find(program)}
    if missing:
        raise LabError(f"missing Debian packages: apt-get install {' '.join(sorted(missing))}", EXIT_SETUP)


def check_busybox_static() -> None:
    """A dynamically linked busybox would not start as the first program of an initramfs."""
    if shared_libraries([find("busybox") or ""]):
        raise LabError("busybox is dynamically linked: apt-get install busybox-static", EXIT_SETUP)


def run(command: Sequence[str], what: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run a tool; on failure say what was being done and show the end of its output."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, **options)  # type: ignore[call-overload]
    if done.returncode != 0:
        tail = done.stdout.decode(errors="replace").strip()[-800:]
        raise LabError(f"{what} failed ({command[0]}, exit {done.returncode}): {tail}")
    return done


def is_elf(path: str | Path) -> bool:
    """Whether the file is an ELF object."""
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def shared_libraries(binaries: Sequence[str]) -> list[str]:
    """Every shared object the binaries load at start, as ldd finds them, loader included.

    ldd asks the real dynamic loader, so RPATH, RUNPATH and sanitizer runtimes come out right.
    """
    found: dict[str, None] = {}
    for binary in binaries:
        done = subprocess.run(["ldd", binary], capture_output=True, text=True)
        for line in done.stdout.splitlines():
            name, arrow, rest = line.strip().partition(" => ")
            path = (rest if arrow else name).split(" (")[0].strip()
            if path == "not found":
                raise LabError(f"{binary} needs {name}, which is not on this machine", EXIT_SETUP)
            if path.startswith("/"):
                found[path] = None
    return list(found)
