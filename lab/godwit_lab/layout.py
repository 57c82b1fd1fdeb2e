"""Where things lie, what a variant is, and what invalidates what.

    <cache>/lock                      serializes everything that changes the cache
    <cache>/net.lock                  held while two runs meet on a named network
    <cache>/debs/                     downloaded kernel packages
    <cache>/kernels/<package>_<ver>/  vmlinux, vmlinuz, config, modules/
    <cache>/assets-<hash>/            image.ext4, host.cpio, manifest.json
    <cache>/frozen/<variant>-<hash>/  ram, state, frozen.json

A name that ends in a hash is complete by construction: it is built beside and renamed into place.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .errors import EXIT_SETUP, LabError

LAB_SOURCE = Path(__file__).resolve().parent.parent
GUESTLOAD_SOURCE = LAB_SOURCE.parent / "guests" / "linux-load"
GUESTS_SHARED_SOURCE = LAB_SOURCE.parent / "guests" / "shared"
MIB = 1 << 20
_NOT_BUILDING = {"cli.py", "errors.py", "network.py", "payload.py", "session.py"}


@dataclass(frozen=True)
class Variant:
    """Size of one emulated host. The name is part of the frozen image's path."""

    name: str
    memory_mib: int
    cpus: int


VARIANTS = {
    "small": Variant("small", 1024, 1),
    "host": Variant("host", 3072, 2),
}


def variant_of(name: str, memory_mib: int | None, cpus: int | None) -> Variant:
    """The named variant, or one derived from it when a size is overridden."""
    if name not in VARIANTS:
        known = ", ".join(sorted(VARIANTS))
        raise LabError(f"unknown variant '{name}': use one of {known}, or --memory/--cpus", EXIT_SETUP)
    base = VARIANTS[name]
    memory_mib = memory_mib or base.memory_mib
    cpus = cpus or base.cpus
    if memory_mib < 512 or cpus < 1 or cpus > 16:
        raise LabError("a lab host needs at least 512 MiB and 1 to 16 CPUs", EXIT_SETUP)
    if (memory_mib, cpus) == (base.memory_mib, base.cpus):
        return base
    return Variant(f"m{memory_mib}c{cpus}", memory_mib, cpus)


def cache_dir() -> Path:
    """The cache directory, created on demand."""
    override = os.environ.get("GODWIT_LAB_DIR")
    path = Path(override) if override else LAB_SOURCE.parent / "build" / "lab"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"cannot create {path}: {error.strerror}; set GODWIT_LAB_DIR", EXIT_SETUP) from error
    return path.resolve()


@contextmanager
def exclusive(cache: Path, name: str = "lock") -> Iterator[None]:
    """Hold a lock of the cache. The kernel drops it when the holder dies, however it dies."""
    with open(cache / name, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def built_beside(target: Path) -> Iterator[Path]:
    """Give a temporary directory that becomes `target` only if the body succeeds."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".building-{target.name}-", dir=target.parent))
    staging.chmod(0o755)
    try:
        yield staging
        if target.exists():
            shutil.rmtree(target)
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def remove_unfinished(cache: Path) -> None:
    """Delete what an interrupted build left behind. Call with the lock held."""
    for parent in (cache, cache / "kernels", cache / "frozen"):
        for leftover in parent.glob(".building-*"):
            shutil.rmtree(leftover, ignore_errors=True)


def require_space(path: Path, bytes_needed: int) -> None:
    """Refuse early, with a number, instead of failing half way with ENOSPC."""
    free = shutil.disk_usage(path).free
    if free < bytes_needed:
        raise LabError(
            f"{path} has {free // MIB} MiB free, {bytes_needed // MIB} MiB are needed: "
            "free some space or set GODWIT_LAB_DIR to another disk",
            EXIT_SETUP,
        )


def digest_of(facts: object) -> str:
    """Short stable hash of anything JSON can hold."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def source_digest() -> str:
    """Hash of all code that can change what a build produces; code that only uses the result is left out."""
    sources: list[Path] = []
    for folder, pattern in (("godwit_lab", "*.py"), ("host", "*"), ("guest", "*")):
        sources += (LAB_SOURCE / folder).glob(pattern)
    contents = {str(path.relative_to(LAB_SOURCE)): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted(sources) if path.is_file() and path.name not in _NOT_BUILDING}
    contents |= {f"{folder.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
                 for folder in (GUESTLOAD_SOURCE, GUESTS_SHARED_SOURCE) for path in sorted(folder.glob("*.[ch]"))}
    return digest_of(contents)


def file_identity(path: str) -> list[object]:
    """Cheap stand-in for a program's version: running `--version` would cost more than a restore."""
    resolved = os.path.realpath(path)
    info = os.stat(resolved)
    return [resolved, info.st_size, info.st_mtime_ns]
