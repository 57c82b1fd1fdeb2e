"""What the emulated host and its guests see: two initramfs archives and one read-only disk image.

The host's initramfs stays small, because unpacking it is what a cold boot mostly does. Everything
bigger (guest kernels, QEMU, fio, all other modules) is on an ext4 image the host mounts read-only:
it costs a restored host nothing until it is touched.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import kernels, stubs, tools
from .cpio import CpioWriter
from .kernels import Kernel
from .layout import GUESTLOAD_SOURCE, LAB_SOURCE, MIB, built_beside, digest_of, file_identity, require_space, source_digest

# Loaded by the host's init before it can see the image.
_HOST_EARLY = ["virtio_pci", "virtio_blk", "crc32c_generic", "ext4"]
# Loaded by the guest's init.
_GUEST_MODULES = ["virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng",
                  "virtio_balloon", "crc32c_generic", "ext4"]
_LIBRARY_DIR = "lib/x86_64-linux-gnu"
_FIRMWARE = ("/usr/share/qemu/*.bin", "/usr/share/qemu/*.rom", "/usr/share/seabios/bios*.bin",
             "/usr/share/seabios/vgabios-stdvga.bin", "/usr/lib/ipxe/qemu/efi-virtio.rom")


@dataclass(frozen=True)
class Assets:
    """Everything a boot needs, complete."""

    path: Path
    vmlinux: Path

    @property
    def host_initramfs(self) -> Path:
        """Initramfs of the emulated host."""
        return self.path / "host.cpio"

    @property
    def image(self) -> Path:
        """Read-only disk image of the emulated host."""
        return self.path / "image.ext4"

    @property
    def digest(self) -> str:
        """Identifies the contents; part of the frozen images' names."""
        return self.path.name.removeprefix("assets-")

    def libraries(self) -> dict[str, list[object]]:
        """Library file name -> identity of the file on this machine it was copied from."""
        return json.loads((self.path / "manifest.json").read_text())["libraries"]


def expected(cache: Path) -> Assets | None:
    """Where the assets for the present inputs are or would be; None before the first prepare."""
    amd64 = kernels.newest_unpacked(cache, "amd64")
    cloud = kernels.newest_unpacked(cache, "cloud")
    if amd64 is None or cloud is None:
        return None
    return _assets(cache, amd64, cloud)


def _assets(cache: Path, amd64: Kernel, cloud: Kernel) -> Assets:
    programs = {name: path for name in ("busybox", *tools.HOST_PROGRAMS) if (path := tools.find(name))}
    facts = {"source": source_digest(), "kernels": [amd64.path.name, cloud.path.name],
             "programs": {name: file_identity(path) for name, path in programs.items()}}
    return Assets(cache / f"assets-{digest_of(facts)}", amd64.vmlinux)


def build(cache: Path, amd64: Kernel, cloud: Kernel) -> Assets:
    """Build the archives and the image unless they are there already."""
    assets = _assets(cache, amd64, cloud)
    if assets.path.exists():
        return assets
    tools.check_busybox_static()
    require_space(cache, 1536 * MIB)
    with built_beside(assets.path) as staging:
        tree = staging / "tree"
        libraries = _fill_tree(tree, amd64, cloud)
        _make_image(tree, staging / "image.ext4")
        shutil.rmtree(tree)
        _host_initramfs(staging / "host.cpio", amd64)
        (staging / "manifest.json").write_text(json.dumps({"libraries": libraries}, indent=1))
    return assets


def write_guest(assets: Assets, folder: Path) -> None:
    """Copy vmlinux, vmlinuz (cloud kernel) and initramfs.cpio out of the host's image into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("vmlinux", "vmlinuz", "initramfs.cpio"):
        tools.run([tools.find("debugfs") or "debugfs", "-R", f"dump /guest/{name} {folder / name}",
                   str(assets.image)], f"copying {name} out of the host's image")
        if not (folder / name).exists():
            raise LabError(f"the host's image has no /guest/{name}: lab/lab clean, then prepare again")


def _fill_tree(tree: Path, amd64: Kernel, cloud: Kernel) -> dict[str, list[object]]:
    """Lay out the image: usr/ (programs, libraries, firmware), lib/modules, guest/."""
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr" / _LIBRARY_DIR).mkdir(parents=True)
    programs = [path for name in tools.HOST_PROGRAMS if (path := tools.find(name))]
    for program in programs:
        shutil.copy(program, tree / "usr/bin")
    (tree / "usr/bin/mkfs.ext4").symlink_to("mke2fs")
    libraries = tools.shared_libraries(programs)
    for library in libraries:
        shutil.copy(library, tree / "usr" / _LIBRARY_DIR)
    for pattern in _FIRMWARE:
        for source in Path("/").glob(pattern.lstrip("/")):
            target = tree / source.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    (tree / "etc").mkdir()
    shutil.copy("/etc/mke2fs.conf", tree / "etc")
    shutil.copytree(amd64.modules, tree / "lib/modules" / amd64.release, copy_function=_link_or_copy)
    guest = tree / "guest"
    guest.mkdir()
    for kernel, suffix in ((cloud, ""), (amd64, "-amd64")):
        _link_or_copy(kernel.vmlinux, guest / f"vmlinux{suffix}")
        _link_or_copy(kernel.vmlinuz, guest / f"vmlinuz{suffix}")
    _guest_initramfs(guest / "initramfs.cpio", [amd64, cloud])
    return {os.path.basename(path): file_identity(path) for path in libraries}


def _link_or_copy(source: str | Path, target: str | Path) -> None:
    """Kernels and staging share a file system, so a hard link usually saves the copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


def _make_image(tree: Path, target: Path) -> None:
    used = sum(info.st_size + 4096 for root, _, names in os.walk(tree) for name in names
               if (info := os.lstat(os.path.join(root, name))))
    size_mib = used * 11 // 10 // MIB + 32
    with open(target, "wb") as image:
        image.truncate(size_mib * MIB)
    # No journal: nothing ever writes. Uninitialised tables and no lazy work keep the file sparse.
    tools.run([tools.find("mke2fs") or "mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-N", "8192",
               "-O", "^has_journal,^metadata_csum", "-E", "lazy_itable_init=1,root_owner=0:0",
               "-d", str(tree), str(target)],
              "building the host's disk image")


def _busybox(archive: CpioWriter, shell: str) -> None:
    """Static busybox and links for all its applets, so that init need not make them at every boot."""
    busybox = tools.find("busybox") or "busybox"
    archive.copy("bin/busybox", busybox)
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout
    for applet in applets.split():
        if applet not in ("busybox", "sh"):
            archive.symlink(f"bin/{applet}", "busybox")
    archive.symlink("bin/sh", shell)
    for directory in ("dev", "proc", "sys", "tmp", "run", "root", "mnt", "etc", "var"):
        archive.directory(directory)
    archive.symlink("sbin", "bin")
    archive.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    archive.file("etc/group", b"root:x:0:\n")
    archive.character_device("dev/console", 5, 1)


def _module_set(archive: CpioWriter, kernel: Kernel, wanted: list[str]) -> None:
    """Modules as /modules/<release>/<nn>-<name>.ko: insmod in name order loads them correctly."""
    folder = f"modules/{kernel.release}"
    archive.directory(folder)
    for index, path in enumerate(kernels.modules_in_order(kernel, wanted)):
        archive.copy(f"{folder}/{index:02}-{path.name}", path, 0o644)


def _host_initramfs(target: Path, kernel: Kernel) -> None:
    archive = CpioWriter()
    # Debian's busybox shell runs its own applets before it looks at PATH, which would hide the real
    # ip, mke2fs and others. So scripts get dash; only init and the agent run under busybox.
    _busybox(archive, "/usr/bin/dash")
    archive.symlink("bin/bash", "/usr/bin/bash")
    _module_set(archive, kernel, _HOST_EARLY)
    archive.copy("init", LAB_SOURCE / "host/init")
    archive.copy("lab/agent", LAB_SOURCE / "host/agent")
    archive.copy("lab/lib.sh", LAB_SOURCE / "host/lib.sh", 0o644)
    keeper = target.with_name("keeper")
    tools.run(["gcc", "-O1", "-Wall", "-static", "-o", str(keeper), str(LAB_SOURCE / "host/keeper.c")],
              "compiling host/keeper.c")
    archive.copy("lab/keeper", keeper)
    keeper.unlink()
    for directory in ("lab/image", "usr", "lib/modules", _LIBRARY_DIR):
        archive.directory(directory)
    archive.symlink("lib64/ld-linux-x86-64.so.2", f"/usr/{_LIBRARY_DIR}/ld-linux-x86-64.so.2")
    archive.symlink("lab/guest", "image/guest")
    archive.symlink("etc/mke2fs.conf", "/lab/image/etc/mke2fs.conf")
    archive.symlink("etc/mtab", "/proc/mounts")
    archive.write(target)


def _guestload(beside: Path) -> Path:
    """The guest's own load and oracle, compiled here: the lab needs no configured build tree."""
    program = beside.with_name("guestload")
    sources = [str(path) for path in sorted(GUESTLOAD_SOURCE.glob("*.c"))]
    tools.run(["gcc", "-O2", "-std=gnu11", "-pthread", "-static", "-o", str(program), *sources],
              "compiling guests/linux-load")
    return program


def _guest_initramfs(target: Path, guest_kernels: list[Kernel]) -> None:
    """One archive that serves both kernels; fio, iperf3 and guestload included."""
    archive = CpioWriter()
    _busybox(archive, "busybox")
    for kernel in guest_kernels:
        _module_set(archive, kernel, _GUEST_MODULES)
    archive.copy("init", LAB_SOURCE / "guest/init")
    archive.copy("bin/guestload", _guestload(target))
    target.with_name("guestload").unlink()
    programs = [tools.find(name) or "" for name in ("fio", "iperf3")]
    for program in programs:
        archive.copy(f"bin/{os.path.basename(program)}", program)
    for library in stubs.libraries_without_stubbed(programs):
        archive.copy(f"{_LIBRARY_DIR}/{os.path.basename(library)}", library)
    for stub in stubs.make_stubs(target.parent, programs[0]):
        archive.copy(f"{_LIBRARY_DIR}/{stub.name}", stub)
        stub.unlink()
    archive.symlink("lib64/ld-linux-x86-64.so.2", f"/{_LIBRARY_DIR}/ld-linux-x86-64.so.2")
    archive.write(target)
