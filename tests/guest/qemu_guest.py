"""A stock Debian kernel under QEMU (emulated CPU, no KVM) that runs a shell script and tells on its console.

The kernel and the first archive are the lab's (fio and the virtio drivers are in it); a second archive adds the
script, the tools of ext4 and their libraries.
"""

import os
import select
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "lab"))
from godwit_lab import frozen, layout, rootfs, tools  # noqa: E402
from godwit_lab.cpio import CpioWriter  # noqa: E402
from godwit_lab.qemu import CPU_MODEL, KERNEL_COMMAND_LINE  # noqa: E402

LIBRARIES = "lib/x86_64-linux-gnu"
PROGRAMS = ("mke2fs", "e2fsck")


class GuestFailed(Exception):
    """The guest did not do what was expected of it; the text ends with its console."""


def archive_of(script, target):
    """The second archive: `script` as /run.sh, and what it calls, in /tools: the shell prefers its own applets."""
    archive = CpioWriter()
    archive.file("run.sh", script.encode(), 0o755)
    programs = [tools.find(name) for name in PROGRAMS]
    for program in programs:
        archive.copy(f"tools/{Path(program).name}", program)
    for library in tools.shared_libraries(programs):
        archive.copy(f"{LIBRARIES}/{os.path.basename(library)}", library)
    archive.copy("etc/mke2fs.conf", "/etc/mke2fs.conf")
    archive.write(target)


class Guest:
    """A started guest. Its memory is shared, as vhost-user needs it."""

    def __init__(self, folder, script, devices, cpus=1, memory_mib=384):
        folder = Path(folder)
        boot = folder / "boot"
        if not boot.exists():
            rootfs.write_guest(frozen.assets_of(layout.cache_dir()), boot)
        archive_of(script, folder / "script.cpio")
        initramfs = folder / "initramfs.cpio"
        initramfs.write_bytes((boot / "initramfs.cpio").read_bytes() + (folder / "script.cpio").read_bytes())
        self.text = ""
        self.process = subprocess.Popen(
            [tools.find("qemu-system-x86_64"), "-machine", "q35,memory-backend=ram", "-accel", "tcg",
             "-cpu", CPU_MODEL, "-smp", str(cpus), "-m", str(memory_mib), "-nodefaults", "-no-reboot", "-display", "none",
             "-object", f"memory-backend-memfd,id=ram,size={memory_mib}M,share=on",
             "-kernel", boot / "vmlinux", "-initrd", initramfs,
             "-append", f"{KERNEL_COMMAND_LINE} lab=run:/run.sh", "-serial", "stdio", *devices],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def wait_for(self, marker, limit_s, meanwhile=None):
        """Reads the console until a line holds `marker`; `meanwhile` is called four times a second."""
        end = time.monotonic() + limit_s
        while marker not in self.text:
            if time.monotonic() > end:
                raise GuestFailed(f"no '{marker}' within {limit_s} s:\n{self.text[-3000:]}")
            if select.select([self.process.stdout], [], [], 0.25)[0]:
                data = os.read(self.process.stdout.fileno(), 65536)
                if not data:
                    raise GuestFailed(f"QEMU ended without '{marker}':\n{self.text[-3000:]}")
                self.text += data.decode(errors="replace").replace("\r", "")
            if meanwhile:
                meanwhile()
        return self.text

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
