"""The tar a lab host unpacks at the start of a run: script, environment, files, libraries."""

from __future__ import annotations

import io
import os
import shlex
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import tools
from .errors import EXIT_SETUP, LabError
from .layout import file_identity
from .qemu import PAYLOAD_BYTES, unnamed_file
from .rootfs import Assets

_WORK = "lab/work"


@dataclass
class Order:
    """What one host shall run, and with what."""

    script: str
    payloads: Sequence[Path] = ()
    files: Sequence[tuple[Path, str]] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def parse_file(argument: str) -> tuple[Path, str]:
    """PATH[:DEST]; a relative DEST is below the script's directory, the default is the bare name."""
    source, _, target = argument.partition(":")
    return Path(source), target or os.path.basename(source)


def pack(folder: Path, order: Order, assets: Assets) -> tuple[int, int]:
    """Write the payload to an unnamed file; gives its descriptor and the tar's size."""
    fd = unnamed_file(folder, 0)
    try:
        with os.fdopen(os.dup(fd), "wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
            _pack_into(archive, order, assets)
        size = os.fstat(fd).st_size
        if size > PAYLOAD_BYTES:
            raise LabError("the payload is larger than 16 GiB", EXIT_SETUP)
        os.ftruncate(fd, PAYLOAD_BYTES)
    except BaseException:
        os.close(fd)
        raise
    return fd, size


def _pack_into(archive: tarfile.TarFile, order: Order, assets: Assets) -> None:
    environment = "".join(f"export {name}={shlex.quote(value)}\n"
                          for name, value in order.environment.items())
    _add_bytes(archive, "lab/run/env", environment.encode())
    _add_bytes(archive, "lab/run/script", order.script.encode())
    binaries: list[str] = []
    for folder in order.payloads:
        if not folder.is_dir():
            raise LabError(f"--payload {folder}: not a directory", EXIT_SETUP)
        archive.add(folder, arcname=_WORK, filter=_owned_by_root)
        binaries += [str(path) for path in folder.rglob("*") if _is_program(path)]
    for source, target in order.files:
        if not source.is_file():
            raise LabError(f"--file {source}: no such file", EXIT_SETUP)
        name = target.lstrip("/") if target.startswith("/") else f"{_WORK}/{target}"
        archive.add(source.resolve(), arcname=name, filter=_owned_by_root)
        if _is_program(source):
            binaries.append(str(source))
    _add_libraries(archive, binaries, assets)


def _add_libraries(archive: tarfile.TarFile, binaries: Sequence[str], assets: Assets) -> None:
    """Add what the host's image does not have in the very same form.

    /usr is read-only there, but the loader looks into /lib first, so what belongs below a standard
    directory goes to /lib. Other places (a build tree in an RPATH) are reproduced as they are.
    """
    present = assets.libraries()
    for library in tools.shared_libraries(binaries):
        name = os.path.basename(library)
        if present.get(name) == file_identity(library):
            continue
        target = library.lstrip("/")
        if os.path.dirname(library) in ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu") \
                or library.startswith("/usr/"):
            target = f"lib/x86_64-linux-gnu/{name}"
        archive.add(os.path.realpath(library), arcname=target, filter=_owned_by_root)


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK) and tools.is_elf(path)


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = 0o644
    archive.addfile(member, io.BytesIO(content))
