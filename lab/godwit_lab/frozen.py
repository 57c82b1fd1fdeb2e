"""Boot a lab host once, freeze it, and know whether a frozen one is still right."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import kernels, rootfs, tools
from .errors import EXIT_SETUP, LabError
from .layout import MIB, Variant, built_beside, digest_of, exclusive, remove_unfinished, require_space
from .qemu import Machine, boot_disks, close_disks
from .rootfs import Assets

# A boot takes 3 to 5 s; a machine under heavy load may need much more.
_BOOT_LIMIT_S = 120.0


@dataclass(frozen=True)
class Frozen:
    """A frozen host, ready to be restored."""

    variant: Variant
    assets: Assets
    path: Path

    @property
    def ram(self) -> Path:
        """Memory of the frozen host; never written again."""
        return self.path / "ram"

    @property
    def state(self) -> Path:
        """Device state of the frozen host."""
        return self.path / "state"


def _frozen(cache: Path, assets: Assets, variant: Variant) -> Frozen:
    facts = [assets.digest, variant.memory_mib, variant.cpus]
    return Frozen(variant, assets, cache / "frozen" / f"{variant.name}-{digest_of(facts)}")


def usable(cache: Path, variant: Variant) -> Frozen | None:
    """The frozen host for the present inputs, or None if it must be prepared."""
    assets = rootfs.expected(cache)
    if assets is None or not assets.path.exists():
        return None
    frozen = _frozen(cache, assets, variant)
    return frozen if frozen.path.exists() else None


def prepare(cache: Path, variants: Sequence[Variant], *, refresh: bool) -> list[Frozen]:
    """Make every variant ready. With `refresh`, also ask apt for newer kernels.

    Calls from several processes are serialized; the later ones find the work done.
    """
    tools.check_installed()
    with exclusive(cache):
        remove_unfinished(cache)
        require_space(cache, 1024 * MIB)
        assets = rootfs.expected(cache)
        if refresh or assets is None:
            assets = _timed("kernels and file systems", lambda: _fetch_and_build(cache))
        elif not assets.path.exists():
            assets = _timed("file systems", lambda: _build(cache))
        ready = []
        for variant in variants:
            frozen = _frozen(cache, assets, variant)
            if not frozen.path.exists():
                _timed(f"frozen host '{variant.name}'", lambda frozen=frozen: _boot_and_freeze(cache, frozen))
            ready.append(frozen)
        _remove_stale(cache, assets)
    return ready


def assets_of(cache: Path) -> Assets:
    """Kernels and file systems alone, built if they are missing: no host is booted."""
    tools.check_installed()
    with exclusive(cache):
        assets = rootfs.expected(cache)
        if assets is None:
            return _timed("kernels and file systems", lambda: _fetch_and_build(cache))
        return assets if assets.path.exists() else _timed("file systems", lambda: _build(cache))


def _timed(what: str, work):  # type: ignore[no-untyped-def]
    started = time.monotonic()
    result = work()
    print(f"lab: {what}: {time.monotonic() - started:.1f} s", file=sys.stderr)
    return result


def _fetch_and_build(cache: Path) -> Assets:
    amd64 = kernels.obtain(cache, "amd64")
    cloud = kernels.obtain(cache, "cloud")
    kernels.remove_others(cache, [amd64, cloud])
    return rootfs.build(cache, amd64, cloud)


def _build(cache: Path) -> Assets:
    amd64 = kernels.newest_unpacked(cache, "amd64")
    cloud = kernels.newest_unpacked(cache, "cloud")
    assert amd64 is not None and cloud is not None
    return rootfs.build(cache, amd64, cloud)


def _boot_and_freeze(cache: Path, frozen: Frozen) -> None:
    require_space(cache, 1024 * MIB)
    with built_beside(frozen.path) as staging:
        ram = staging / "ram"
        with open(ram, "wb") as file:
            file.truncate(frozen.variant.memory_mib * MIB)
        disks = boot_disks(cache, frozen.assets, -1, [])
        try:
            machine = Machine(frozen.variant, frozen.assets, ram, disks)
        finally:
            close_disks(disks)
        try:
            _wait_ready(machine)
            machine.freeze(staging / "state")
        finally:
            machine.kill()
        facts = {"variant": frozen.variant.name, "memory_mib": frozen.variant.memory_mib,
                 "cpus": frozen.variant.cpus}
        (staging / "frozen.json").write_text(json.dumps(facts))


def _wait_ready(machine: Machine) -> None:
    """Wait for the agent's first line, the machine's end, or the limit."""
    deadline = time.monotonic() + _BOOT_LIMIT_S
    control = machine.channels["control"]
    received = b""
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while b"ready\n" not in received:
            left = deadline - time.monotonic()
            chunk = control.recv(4096) if left > 0 and selector.select(left) else b""
            if not chunk:
                reason = "died while booting" if left > 0 else f"did not boot within {_BOOT_LIMIT_S:.0f} s"
                raise LabError(f"the lab host {reason}; end of its console:\n{machine.console_text()[-2000:]}",
                               EXIT_SETUP)
            received += chunk


def _remove_stale(cache: Path, assets: Assets) -> None:
    """Drop what other inputs produced. Runs in progress keep their files open and are not hurt."""
    for path in cache.glob("assets-*"):
        if path != assets.path:
            shutil.rmtree(path, ignore_errors=True)
    for path in (cache / "frozen").glob("*"):
        variant = _variant_at(path)
        if variant is None or _frozen(cache, assets, variant).path != path:
            shutil.rmtree(path, ignore_errors=True)


def _variant_at(path: Path) -> Variant | None:
    try:
        facts = json.loads((path / "frozen.json").read_text())
        return Variant(facts["variant"], facts["memory_mib"], facts["cpus"])
    except (OSError, ValueError, KeyError):
        return None


def describe(cache: Path) -> list[dict[str, object]]:
    """What is prepared, for `lab status`."""
    rows = []
    assets = rootfs.expected(cache)
    for path in sorted((cache / "frozen").glob("*-*")):
        variant = _variant_at(path)
        if variant is None:
            continue
        current = assets is not None and assets.path.exists() and _frozen(cache, assets, variant).path == path
        rows.append({"variant": variant.name, "memory_mib": variant.memory_mib, "cpus": variant.cpus,
                     "current": current, "allocated_mib": _allocated(path) // MIB})
    return rows


def _allocated(path: Path) -> int:
    """Bytes a directory really takes; memory files are sparse."""
    total = 0
    for root, _, names in os.walk(path):
        total += sum(os.lstat(os.path.join(root, name)).st_blocks * 512 for name in names)
    return total


def allocated_mib(path: Path) -> int:
    """MiB a directory really takes."""
    return _allocated(path) // MIB
