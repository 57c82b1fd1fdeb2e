"""Debian's stock kernels: found by apt, downloaded, unpacked, never installed on this machine."""

from __future__ import annotations

import lzma
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from .errors import EXIT_SETUP, LabError
from .layout import built_beside
from .tools import find, run

# The lab host needs kvm_amd, device-mapper, nvdimm, kexec and the like: the full kernel. The guest
# boots about twice as fast with the cloud flavour. Both kernels are offered to guests.
FLAVOURS = {"amd64": "linux-image-amd64", "cloud": "linux-image-cloud-amd64"}

# Never useful on an emulated machine, but three quarters of the module tree.
_SKIPPED_MODULES = re.compile(
    r"kernel/(sound|drivers/(gpu|media|staging|iio|infiniband|hwmon|input|leds|mmc|mtd|usb|hid|isdn"
    r"|bluetooth|thunderbolt|video|power|platform|comedi|firewire|net/(wireless|ethernet|usb|can|wan"
    r"|ieee802154|hamradio|fddi|arcnet))|net/(wireless|mac80211|bluetooth|can|nfc))/")
_KEPT_ANYWAY = re.compile(r"/(e1000|e1000e|8139cp)/")


@dataclass(frozen=True)
class Kernel:
    """One unpacked kernel."""

    flavour: str
    release: str
    path: Path

    @property
    def vmlinux(self) -> Path:
        """Uncompressed ELF image, bootable by PVH."""
        return self.path / "vmlinux"

    @property
    def vmlinuz(self) -> Path:
        """The bzImage as Debian ships it."""
        return self.path / "vmlinuz"

    @property
    def modules(self) -> Path:
        """Directory that belongs at /lib/modules/<release>."""
        return self.path / "lib" / "modules" / self.release


def obtain(cache: Path, flavour: str) -> Kernel:
    """Newest kernel apt knows; without a network, the newest already unpacked."""
    try:
        package, version = _resolve(FLAVOURS[flavour])
        target = cache / "kernels" / f"{package}_{version.replace(':', '_')}"
        if not target.exists():
            _unpack(_download(cache, package, version), target)
        return _open(flavour, target)
    except LabError as error:
        present = newest_unpacked(cache, flavour)
        if present is None:
            raise
        print(f"lab: keeping kernel {present.release}: {error}", file=sys.stderr)
        return present


def newest_unpacked(cache: Path, flavour: str) -> Kernel | None:
    """The most recently unpacked kernel of a flavour, asking nobody."""
    candidates = [path for path in (cache / "kernels").glob("linux-image-*")
                  if path.name.split("_")[0].endswith("-cloud-amd64") == (flavour == "cloud")]
    if not candidates:
        return None
    return _open(flavour, max(candidates, key=lambda path: path.stat().st_mtime_ns))


def _open(flavour: str, path: Path) -> Kernel:
    return Kernel(flavour, path.name.split("_")[0].removeprefix("linux-image-"), path)


def _resolve(meta_package: str) -> tuple[str, str]:
    """Follow the meta package to the versioned one, and give the version apt would install."""
    depends = subprocess.run(["apt-cache", "depends", meta_package], capture_output=True, text=True)
    match = re.search(r"Depends: (linux-image-[0-9]\S+)", depends.stdout)
    if not match:
        raise LabError(f"apt does not know {meta_package}: run apt-get update", EXIT_SETUP)
    shown = subprocess.run(["apt-cache", "show", "--no-all-versions", match[1]],
                           capture_output=True, text=True)
    version = re.search(r"^Version: (\S+)$", shown.stdout, re.MULTILINE)
    if not version:
        raise LabError(f"apt does not know {match[1]}: run apt-get update", EXIT_SETUP)
    return match[1], version[1]


def _download(cache: Path, package: str, version: str) -> Path:
    """Fetch one package file into the cache; apt verifies size and checksum."""
    debs = cache / "debs"
    debs.mkdir(exist_ok=True)
    # apt escapes the epoch's colon in file names.
    target = debs / f"{package}_{version.replace(':', '%3a')}_amd64.deb"
    if target.exists():
        return target
    done = subprocess.run(
        ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", f"{package}={version}"],
        cwd=debs, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0 or not target.exists():
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise LabError(f"cannot download {package} {version}: {reason}; check the network and run "
                       f"apt-get update, or put the .deb into {debs}", EXIT_SETUP)
    return target


def _unpack(deb: Path, target: Path) -> None:
    with built_beside(target) as staging:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as reader:
            assert reader.stdout is not None
            with tarfile.open(fileobj=reader.stdout, mode="r|") as archive:
                for member in archive:
                    _unpack_member(archive, member, staging)
        if reader.returncode != 0:
            deb.unlink()
            raise LabError(f"{deb.name} was damaged and has been deleted: try again")
        release = next((staging / "lib" / "modules").iterdir()).name
        run([find("depmod") or "depmod", "-b", str(staging), release], "indexing kernel modules")
        extract_vmlinux(staging / "vmlinuz", staging / "vmlinux")


def _unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, staging: Path) -> None:
    name = member.name.removeprefix("./")
    if re.match(r"boot/(vmlinuz|config)-", name):
        member.name = name.split("/")[1].split("-")[0]
    elif not re.match(r"lib/modules/[^/]+/", name) or not member.isfile():
        return
    elif _SKIPPED_MODULES.search(name) and not _KEPT_ANYWAY.search(name):
        return
    archive.extract(member, staging)


def extract_vmlinux(bzimage: Path, target: Path) -> None:
    """Take the ELF kernel out of a bzImage.

    Decompressing costs the emulated CPU four seconds per boot, this machine does it once. The place
    of the payload is in the setup header: Documentation/arch/x86/boot.rst, payload_offset.
    """
    image = bzimage.read_bytes()
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    elf = _decompress(image[start:start + length])
    if elf[:4] != b"\x7fELF":
        raise LabError(f"{bzimage} holds no ELF kernel")
    target.write_bytes(elf)


def _decompress(payload: bytes) -> bytes:
    """The payload ends with its unpacked size (4 bytes), which strict tools must not see."""
    if payload.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31).decompress(payload)
    if payload.startswith(b"\x02\x21\x4c\x18"):
        return subprocess.run(["lz4", "-dc"], input=payload[:-4], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, check=True).stdout
    raise LabError(f"unknown kernel compression (magic {payload[:4].hex()})")


def modules_in_order(kernel: Kernel, wanted: list[str]) -> list[Path]:
    """The wanted modules and all they depend on, in an order insmod accepts.

    modules.dep lists the dependencies of a module from the nearest to the farthest. Names compare
    with '-' and '_' equal, as modprobe does. A module built into the kernel is left out.
    """
    dependencies: dict[str, list[str]] = {}
    for line in (kernel.modules / "modules.dep").read_text().splitlines():
        path, _, needed = line.partition(":")
        dependencies[_module_name(path)] = [*reversed(needed.split()), path]
    built_in = {_module_name(line)
                for line in (kernel.modules / "modules.builtin").read_text().splitlines()}
    ordered: dict[Path, None] = {}
    for name in wanted:
        if name in built_in:
            continue
        if name not in dependencies:
            raise LabError(f"kernel {kernel.release} has no module {name}")
        for path in dependencies[name]:
            ordered[kernel.modules / path] = None
    return list(ordered)


def _module_name(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".ko").replace("-", "_")


def remove_others(cache: Path, keep: list[Kernel]) -> None:
    """Drop kernels and packages of earlier versions."""
    kept = {kernel.path.name for kernel in keep}
    for path in (cache / "kernels").glob("linux-image-*"):
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)
    for deb in (cache / "debs").glob("*.deb"):
        if deb.name.removesuffix("_amd64.deb").replace("%3a", "_") not in kept:
            deb.unlink()
