"""What each guest of the demo is: its machine, its load, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
HOST_ADDRESS = "10.77.7.1"
GUEST_ADDRESS = "10.77.7.2"
BLOCK_BYTES = 4096

# What a stock kernel need not do on an emulated host (lab/host/lib.sh); harmless on a real one.
_LINUX_FAST = ("mitigations=off nokaslr tsc=reliable no_timer_check cryptomgr.notests random.trust_cpu=on audit=0 "
               "apparmor=0 rcupdate.rcu_expedited=1 8250.nr_uarts=1 init_on_alloc=0 ipv6.disable=1 "
               "initcall_blacklist=cmos_init,i8042_init quiet")


@dataclass(frozen=True)
class Size:
    """How much of everything one run takes."""

    memory_mib: int
    working_set_mib: int
    cpus: int
    disk_mib: int
    span_mib: int
    report_ms: int
    settle_s: float
    mem_rate: int
    disk_rate: int
    net_rate: int
    patience: int  # multiple of the driver's limits

    @property
    def disk_bytes(self) -> int:
        """Size of the image."""
        return self.disk_mib * MIB


def size_of(guest: str, where: str, quick: bool) -> Size:
    """An emulated host is some thirty times slower than this machine, and gets load to match.

    Its processor is one, too: now and then a guest with several stands still in it while its kernel stops all of
    them to patch itself (lab/README.md, known holes), so the quick guest has one.
    """
    if where == "lab":
        return Size(256 if guest == "linux" else 192, 16 if quick else 48, 1 if quick else 2, 64, 2 if quick else 8, 1000, 0.5,
                    mem_rate=2000, disk_rate=60, net_rate=10, patience=6)
    return Size(256 if quick else 1024, 64 if quick else 256, 2, 64, 4 if quick else 16, 200, 0.1 if quick else 0.3,
                mem_rate=20000, disk_rate=1500, net_rate=100, patience=1)


def _load_words(guest: str, size: Size, net: bool) -> list[str]:
    words = [f"mem_set={size.working_set_mib}M", f"mem_rate={size.mem_rate}", "mem_pattern=hot",
             "disk_qd=4", f"disk_span={size.span_mib}M", f"disk_rate={size.disk_rate}", "disk_flush=64",
             f"report_ms={size.report_ms}"]
    if guest == "linux":
        words += ["out=/dev/hvc0", "disk=/dev/vda", "disk_pattern=mixed", "tick_us=1000"]
        words += [f"net={HOST_ADDRESS}", f"net_rate={size.net_rate}"] if net else []
    else:
        words += ["out=both", "disk=journal", "disk_pattern=random"]
        words += ["net=heartbeat", f"net_rate={size.net_rate}"] if net else []
    return words


def command_line(guest: str, size: Size, net: bool) -> str:
    """The guest's kernel command line."""
    words = _load_words(guest, size, net)
    if guest == "beacon":
        return " ".join(words)
    address = f" lab.ip={GUEST_ADDRESS}/24" if net else ""
    return f"console=ttyS0 {_LINUX_FAST}{address} lab=load:{','.join(words)}"


def make_job(guest: str, size: Size, exchanges: int, paths: dict[str, str], tap: str | None) -> dict:
    """The document drive.py obeys. `paths`: godwit, first, next, kernel, initrd, disk, out, run_dir."""
    run = ["--kernel", paths["kernel"], "--cmdline", command_line(guest, size, tap is not None),
           "--cpus", str(size.cpus), "--memory", f"{size.memory_mib}M", "--disk", paths["disk"]]
    if guest == "linux":
        run += ["--initrd", paths["initrd"]]
    net = None
    if tap is not None:
        run += ["--net", f"tap={tap}"]
        net = {"tap": tap, "kind": "udp" if guest == "linux" else "raw", "host_address": f"{HOST_ADDRESS}/24",
               "guest_address": GUEST_ADDRESS, "rate": size.net_rate}
    return {"guest": guest, "name": f"demo-{guest}", "godwit": paths["godwit"], "run": run,
            "programs": [paths["first"], paths["next"]], "exchanges": exchanges, "net": net,
            "console": "virtio", "consoles": ["virtio", "serial"], "disk": paths["disk"],
            "disk_bytes": size.disk_bytes, "out": paths["out"], "run_dir": paths["run_dir"],
            "settle_s": size.settle_s, "patience": size.patience}
