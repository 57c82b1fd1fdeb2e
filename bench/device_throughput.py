#!/usr/bin/env python3
"""virtio-blk and virtio-net of a stock Linux guest, against QEMU on the same frozen lab host.

The guest boots, runs fio on its disk (4 KiB, O_DIRECT, io_uring, random read and write, queue depth 1 and 32) and
iperf3 to the host over its tap in both directions, and prints the results. The disk is the host's block device
/dev/scratch, its first part written before. QEMU: q35, io_uring, O_DIRECT, disk in an iothread, tap without vhost
(packets go through the monitor in both). The monitors take turns; every turn is a fresh boot.

    bench/device_throughput.py [--runs 3] [--seconds 4] [--save]         (always in the lab)
"""

import re
import subprocess
import sys
from pathlib import Path

import measuring
import vmms

_LAB_GUEST = Path("/lab/guest")
_TAP, _HOST, _GUEST = "bench0", "10.77.8.1", "10.77.8.2"
_SPAN_MIB = 256
_BLOCK_JOBS = {"randread qd1": ("randread", 1), "randread qd32": ("randread", 32),
               "randwrite qd1": ("randwrite", 1), "randwrite qd32": ("randwrite", 32)}
_NET_JOBS = {"tcp to host": "", "tcp to guest": "-R"}
_BEFORE = """
cat > guest.sh <<'END'
. /work/parameters
while read -r name mode depth; do
    [ -n "$depth" ] || continue
    # Terse output: field 8 is read IOPS, field 49 write IOPS.
    echo "RESULT $name $(fio --name=x --filename=/dev/vda --size=%dM --bs=4k --direct=1 --ioengine=io_uring \\
        --rw=$mode --iodepth=$depth --time_based --runtime=$SECONDS_PER_JOB --norandommap --minimal | cut -d';' -f8,49)"
done < /work/jobs
for way in '' -R; do
    echo "RESULT net$way $(iperf3 -c %s -t $SECONDS_PER_JOB -f m $way | grep -m 1 receiver)"
done
END
guest_initramfs /tmp/bench.cpio guest.sh parameters jobs || die "no guest initramfs"
dd if=/dev/urandom of=/tmp/noise bs=1M count=16 2> /dev/null
for part in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
    dd if=/tmp/noise of=/dev/scratch bs=1M seek=$((part * 16)) oflag=direct 2> /dev/null || die "no scratch disk"
done
modprobe tun
""" % (_SPAN_MIB, _HOST)


def parse(text):
    """Name -> IOPS or Mbit/s of one boot."""
    found = {}
    for name, (mode, _) in _BLOCK_JOBS.items():
        match = re.search(rf"RESULT {name.replace(' ', '_')} (\d+);(\d+)", text)
        if match:
            found[name] = float(match[1] if mode == "randread" else match[2])
    for name, way in _NET_JOBS.items():
        match = re.search(rf"RESULT net{way} .*?([\d.]+) Mbits/sec", text)
        if match:
            found[name] = float(match[1])
    missing = [name for name in (*_BLOCK_JOBS, *_NET_JOBS) if name not in found]
    if missing:
        raise vmms.Failed(f"no result for {missing} in {text[-1500:]}")
    return found


class QemuWithIothread(vmms.Qemu):
    """QEMU's disk in a thread of its own, as one would run it for speed."""

    @staticmethod
    def _command(guest, machine, ram, block):
        command = vmms.Qemu._command(guest, machine, ram, block)
        index = next(index for index, word in enumerate(command) if word.startswith("virtio-blk-pci"))
        command[index] += ",iothread=io"
        return [*command, "-object", "iothread,id=io"]


SUBJECTS = {"godwit-vmm": vmms.Godwit, "qemu q35": QemuWithIothread}


def measure(make, guest):
    server = subprocess.Popen(["iperf3", "-s", "-B", _HOST], stdout=subprocess.DEVNULL)
    try:
        with make(guest) as machine:
            machine.serial.wait_bytes(b"GODWIT-GUEST-EXIT", 300)
            return parse(machine.serial.data.decode(errors="replace"))
    finally:
        server.kill()
        server.wait()


def make_tap():
    for words in (["tuntap", "add", "dev", _TAP, "mode", "tap"], ["address", "add", f"{_HOST}/24", "dev", _TAP],
                  ["link", "set", _TAP, "up"]):
        subprocess.run(["ip", *words], check=True)


def main():
    parser = measuring.options(__doc__.split("\n", maxsplit=1)[0], 3)
    parser.add_argument("--seconds", type=int, default=4, help="of each job")
    parser.add_argument("--only", choices=sorted(SUBJECTS), action="append", help="measure only this; repeatable")
    arguments = parser.parse_args()
    if not _LAB_GUEST.exists():
        import lab_run
        words = ["--runs", str(arguments.runs), "--seconds", str(arguments.seconds)]
        words += [word for name in arguments.only or [] for word in ("--only", name)]
        jobs = "".join(f"{name.replace(' ', '_')} {mode} {depth}\\n" for name, (mode, depth) in _BLOCK_JOBS.items())
        before = f"echo SECONDS_PER_JOB={arguments.seconds} > parameters\nprintf '{jobs}' > jobs\n{_BEFORE}"
        return lab_run.run("device_throughput.py", words, arguments.save, 1800, before)
    make_tap()
    names = arguments.only or list(SUBJECTS)
    values = {name: {job: [] for job in (*_BLOCK_JOBS, *_NET_JOBS)} for name in names}
    from kernel_boot import _COMMAND_LINE
    guest = vmms.Guest(_COMMAND_LINE.replace("lab=off", f"lab=run:/work/guest.sh lab.ip={_GUEST}/24"),
                       kernel=_LAB_GUEST / "vmlinux", initrd=Path("/tmp/bench.cpio"), memory_mib=384,
                       disk=Path("/dev/scratch").resolve(), tap=_TAP)
    for number in range(arguments.runs):
        for offset in range(len(names)):
            name = names[(number + offset) % len(names)]
            for job, value in measure(SUBJECTS[name], guest).items():
                values[name][job].append(value)
            print(f"round {number + 1}: {name} done", flush=True)
    document = {"unit": "IOPS, Mbit/s", "subjects": {name: {job: measuring.summary(list_) for job, list_ in jobs.items()}
                                                      for name, jobs in values.items()}}
    rows = [[job, *(document["subjects"][name][job]["median"] for name in names)] for job in values[names[0]]]
    if len(names) == 2:
        document["ratio"] = {row[0]: round(row[1] / row[2], 3) for row in rows if row[2]}
        rows = [[*row, document["ratio"].get(row[0], 0.0)] for row in rows]
    measuring.table("a stock guest's devices, IOPS and Mbit/s (promise: ratio at least 1)",
                    ["", *names, *(["ratio"] if len(names) == 2 else [])], rows)
    measuring.finish("device_throughput", document, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
