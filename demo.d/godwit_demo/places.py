"""Where a guest runs: on this machine's KVM, or on an emulated host of the laboratory."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from . import jobs, machine, portable_python

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = ROOT / "guests/beacon/tools"
_SCRATCH = ROOT / "build/demo"
_LAB = ROOT / "lab/lab"
_TAP = "godwit-demo0"
_LAB_LIMIT_S = 900
# One CPU: emulators before QEMU 8.1 can crash a host with several (lab/README.md, known holes).
_LAB_SIZE = ["--variant", "small", "--memory", "2048M"]
_PR_SET_PDEATHSIG = 1


class Unable(Exception):
    """The demo cannot run here; the text says what to do."""


def cpu_has_virtualization() -> bool:
    """Whether KVM here rests on the processor, so that a stock kernel runs at its own speed."""
    with open("/proc/cpuinfo") as file:
        return any(flag in line.split() for line in file if line.startswith("flags") for flag in ("vmx", "svm"))


def kvm_is_usable() -> bool:
    """Whether this user may open /dev/kvm."""
    return os.access("/dev/kvm", os.R_OK | os.W_OK)


def choose() -> dict[str, str]:
    """Guest -> "local" or "lab"."""
    if not kvm_is_usable():
        return {"linux": "lab", "beacon": "lab"}
    return {"linux": "local" if cpu_has_virtualization() else "lab", "beacon": "local"}


def why(where: dict[str, str]) -> str:
    """One sentence for a person."""
    if where["beacon"] == "lab":
        reason = "no /dev/kvm" if not os.path.exists("/dev/kvm") else "/dev/kvm may not be opened by this user"
        return f"{reason}: both guests run on an emulated host (lab)"
    if where["linux"] == "lab":
        return ("/dev/kvm is here, but without hardware assistance (no vmx or svm): "
                "beacon runs on it, Linux on an emulated host (lab)")
    return "hardware-assisted KVM: both guests run on this machine"


def can_make_taps() -> bool:
    """A tap in a private network namespace needs root."""
    return os.geteuid() == 0 and os.path.exists("/dev/net/tun") and shutil.which("unshare") is not None


def prepare_lab(guest_folder: Path | None) -> None:
    """Make the lab ready; with a folder, also copy the stock kernel and the guest's initramfs into it."""
    command = [_LAB, "guest", guest_folder] if guest_folder else [_LAB, "prepare"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL)
    if done.returncode != 0:
        raise Unable(f"{' '.join(map(str, command))} failed with exit code {done.returncode}; it says above why")


class Place:
    """One run of one guest; a context that leaves nothing behind but `out`."""

    def __init__(self, guest: str, binaries: Path, quick: bool, exchanges: int) -> None:
        _SCRATCH.mkdir(parents=True, exist_ok=True)
        self.guest = guest
        self.binaries = binaries
        self.quick = quick
        self.exchanges = exchanges
        self.folder = Path(tempfile.mkdtemp(prefix=f"{guest}-{os.getpid()}-", dir=_SCRATCH))
        self.out = self.folder / "out"
        self.out.mkdir()
        self.process: subprocess.Popen[bytes] | None = None
        self.end_signal = signal.SIGTERM
        self.network = False

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_reason: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(self.end_signal)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.clean()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self) -> None:
        """Drive the guest; what it left is in `out` afterwards."""
        command = self.command()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                        preexec_fn=_die_with_parent(self.end_signal))
        self.process.wait()

    def command(self) -> list[str]:
        """Writes the job and gives the command that does it."""
        raise NotImplementedError

    def clean(self) -> None:
        """What only this kind of place has to undo."""

    def image(self) -> Path:
        """The disk as the guest left it."""
        raise NotImplementedError

    def write_job(self, size: jobs.Size, paths: dict[str, str], tap: str | None) -> Path:
        """Makes the job document."""
        self.network = tap is not None
        path = self.folder / "job.json"
        path.write_text(json.dumps(jobs.make_job(self.guest, size, self.exchanges, paths, tap), indent=1))
        return path


class LocalPlace(Place):
    """This machine. Network, processes and run directory are private and vanish with the driver."""

    where = "local"

    def command(self) -> list[str]:
        tap = _TAP if can_make_taps() else None
        # A socket's path has at most 107 bytes, and this tree may lie deep.
        self.run_dir = Path(tempfile.mkdtemp(prefix=f"godwit-demo-{os.getpid()}-"))
        kernel = self.binaries / "beacon"
        if self.guest == "linux":
            kernel = self.folder / "guest/vmlinux"
            prepare_lab(kernel.parent)
        paths = {"godwit": self.binaries / "godwit", "first": self.binaries / "godwit-vmm",
                 "next": self.binaries / "godwit-vmm-next", "kernel": kernel,
                 "initrd": self.folder / "guest/initramfs.cpio", "disk": self.image(), "out": self.out,
                 "run_dir": self.run_dir}
        job = self.write_job(jobs.size_of(self.guest, "local", self.quick),
                             {name: str(path) for name, path in paths.items()}, tap)
        private = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"] if tap else []
        if private:
            # unshare ignores SIGTERM; when it is killed, its whole process namespace goes with it.
            self.end_signal = signal.SIGKILL
        return [*private, sys.executable, "-B", "-S", "-c",
                f"import sys; sys.path.insert(0, {str(ROOT / 'demo.d')!r}); "
                "from godwit_demo import drive; sys.exit(drive.main(sys.argv[1]))", str(job)]

    def clean(self) -> None:
        if hasattr(self, "run_dir"):
            for pid in machine.processes_of(str(self.run_dir)):
                os.kill(pid, signal.SIGKILL)
            shutil.rmtree(self.run_dir, ignore_errors=True)

    def image(self) -> Path:
        return self.folder / "disk.raw"


class LabPlace(Place):
    """An emulated host: the same driver, sent there with a small Python."""

    where = "lab"

    def command(self) -> list[str]:
        paths = {"godwit": "/lab/work/bin/godwit", "first": "/lab/work/bin/godwit-vmm",
                 "next": "/lab/work/bin/godwit-vmm-next", "disk": "/mnt/demo/disk.raw", "out": "/lab/out",
                 "run_dir": "/run/godwit", "initrd": "/lab/guest/initramfs.cpio",
                 "kernel": "/lab/guest/vmlinux" if self.guest == "linux" else "/lab/work/beacon"}
        size = jobs.size_of(self.guest, "lab", self.quick)
        payload = self.folder / "payload"
        payload.mkdir()
        start = portable_python.build(payload / "python", [ROOT / "demo.d"], ["godwit_demo.drive"])
        shutil.copy(self.write_job(size, paths, _TAP), payload / "job.json")
        script = self.folder / "script.sh"
        script.write_text(f""". /lab/lib.sh
scratch_ext4 /mnt/demo || die "no scratch disk"
{' '.join(start)} -c "
import sys
from godwit_demo import drive
sys.exit(drive.main('job.json'))"
code=$?
cp /run/godwit/machines/*/vmm.log /run/godwit/godwitd.log "$LAB_OUT" 2> /dev/null
head -c {size.span_mib * jobs.MIB} /mnt/demo/disk.raw > "$LAB_OUT/disk.raw"
exit $code
""")
        programs = [word for name in ("godwit", "godwitd", "godwit-vmm", "godwit-vmm-next")
                    for word in ("--file", f"{self.binaries / name}:bin/{name}")]
        beacon = ["--file", f"{self.binaries / 'beacon'}:beacon"] if self.guest == "beacon" else []
        return [str(_LAB), "run", *_LAB_SIZE, "--payload", str(payload), *programs, *beacon, "--out", str(self.out),
                "--timeout", str(_LAB_LIMIT_S), "--script", str(script)]

    def image(self) -> Path:
        return self.out / "disk.raw"


def _die_with_parent(number: int) -> Callable[[], None]:
    """For the child before exec. Ctrl-C is for the demo, which ends its children in its own way."""
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, number)
        os.setpgid(0, 0)

    return prepare


def remove_leftovers() -> None:
    """Delete the folders of demos that were killed before they could."""
    for path in (*_SCRATCH.glob("*-*"), *Path(tempfile.gettempdir()).glob("godwit-demo-*")):
        owner = path.name.rsplit("-", 2)[1]
        if owner.isdigit() and not os.path.exists(f"/proc/{owner}"):
            shutil.rmtree(path, ignore_errors=True)
