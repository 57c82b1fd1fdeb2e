#!/usr/bin/env python3
"""Boots beacon under QEMU without KVM and lets it prove itself.

Three runs on q35 with two CPUs, disk, network and console. In the first beacon must refuse its command
line. The second loads everything for a few seconds, asks for a verification and stops; log, disk image
and frames are checked on the host. In the third the host damages the disk under beacon, which must
notice.

usage: test_qemu.py BEACON_ELF [--qemu PROGRAM]
"""

import argparse
import os
import pathlib
import select
import socket
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "tools"))
import beacon_disk  # noqa: E402
import beacon_log  # noqa: E402

TIME_LIMIT_S = 120
ETHERTYPE = b"\x88\xb5"
FRAME = struct.Struct("<4sIQQ")  # magic, type, sequence, time
HEARTBEAT, ECHO_REQUEST, ECHO_REPLY = 1, 2, 3
HOST_MAC = bytes.fromhex("020000000001")


class Failure(Exception):
    """The test has shown something wrong."""


def expect(condition, what) -> None:
    if not condition:
        raise Failure(what)


def frame_bytes(destination: bytes, kind: int, sequence: int) -> bytes:
    payload = FRAME.pack(b"GWHB", kind, sequence, 0)
    payload += struct.pack("<I", beacon_log.fnv1a32(payload))
    return (destination + HOST_MAC + ETHERTYPE + payload).ljust(60, b"\0")


class Guest:
    """One QEMU with beacon in it."""

    def __init__(self, qemu: str, elf: str, folder: pathlib.Path, command_line: str):
        self.image = folder / "disk.raw"
        self.log = beacon_log.Log()
        self.serial_text = b""
        self.console_log = folder / "console.log"
        self.guest_frames, self.replies = [], []
        with open(self.image, "wb") as file:
            file.truncate(16 << 20)
        self.net = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.net.bind(str(folder / "host.sock"))
        self.guest_socket = str(folder / "guest.sock")
        self.process = subprocess.Popen(
            [qemu, "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"]
            + ["-m", "256", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]
            + ["-kernel", elf, "-append", command_line]
            + ["-drive", f"file={self.image},format=raw,if=none,id=d0"]
            + ["-device", "virtio-blk-pci,drive=d0,disable-legacy=on"]
            + ["-netdev", f"dgram,id=n0,local.type=unix,local.path={self.guest_socket},"
               f"remote.type=unix,remote.path={folder / 'host.sock'}"]
            + ["-device", "virtio-net-pci,netdev=n0,mac=02:00:00:00:00:02,disable-legacy=on"]
            + ["-chardev", f"file,id=c0,path={self.console_log}"]
            + ["-device", "virtio-serial-pci,disable-legacy=on"]
            + ["-device", "virtconsole,chardev=c0"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.deadline = time.monotonic() + TIME_LIMIT_S

    def command(self, text: str) -> None:
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def send(self, kind: int, sequence: int) -> None:
        self.net.sendto(frame_bytes(b"\xff" * 6, kind, sequence), self.guest_socket)

    def wait_for(self, name: str, times: int = 1) -> dict:
        """Serves serial port and network until an event has come so many times."""
        while sum(e["event"] == name for e in self.log.events) < times:
            expect(self._serve(), f"QEMU ended before event {name}")
        return self.log.last(name)

    def wait_for_end(self) -> None:
        while self._serve():
            pass
        self.log.close()
        expect(self.process.wait(timeout=10) == 0, "QEMU ended with an error")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.net.close()

    def _serve(self) -> bool:
        left = self.deadline - time.monotonic()
        expect(left > 0, "time limit")
        ready, _, _ = select.select([self.process.stdout, self.net], [], [], left)
        if self.net in ready:
            self._frame(self.net.recv(2048))
        if self.process.stdout in ready:
            data = os.read(self.process.stdout.fileno(), 65536)
            self.serial_text += data
            self.log.feed(data)
            return data != b""
        return True

    def _frame(self, data: bytes) -> None:
        expect(data[12:14] == ETHERTYPE, "a frame of another type")
        payload, crc = data[14 : 14 + FRAME.size], data[14 + FRAME.size : 18 + FRAME.size]
        expect(struct.unpack("<I", crc)[0] == beacon_log.fnv1a32(payload), "a damaged frame")
        magic, kind, sequence, _ = FRAME.unpack(payload)
        expect(magic == b"GWHB", "a frame without magic")
        (self.replies if kind == ECHO_REPLY else self.guest_frames).append(sequence)


def send_host_frames(guest: Guest) -> None:
    """Fifty heartbeats of which 10 is lost, 20 comes twice, and 30 comes after 31."""
    order = [n for n in range(1, 51) if n not in (10, 30)]
    order.insert(order.index(20), 20)
    order.insert(order.index(31) + 1, 30)
    for sequence in order:
        guest.send(HEARTBEAT, sequence)
    for sequence in range(1000, 1005):
        guest.send(ECHO_REQUEST, sequence)


def check_checker(text: bytes) -> None:
    """The log checker itself must refuse a lost line, a doubled line, a lost byte and a changed one."""
    lines = text.splitlines(keepends=True)
    middle = len(text) // 2
    for damaged in (
        b"".join(lines[:3] + lines[4:]),
        b"".join(lines[:4] + lines[3:]),
        text[:middle] + text[middle + 1 :],
        text[:middle] + bytes([text[middle] ^ 1]) + text[middle + 1 :],
        text[:-5],
    ):
        log = beacon_log.Log()
        log.feed(damaged)
        log.close()
        expect(log.violations, "the log checker accepts a damaged log")


def check_everything(guest: Guest) -> None:
    boot = guest.wait_for("boot")
    expect(boot["cpus"] == 2 and boot["disk"]["irq"] and boot["net"]["irq"], f"boot: {boot}")
    guest.wait_for("populated")
    guest.wait_for("report")
    send_host_frames(guest)
    guest.wait_for("report", times=3)
    guest.command("reset-gaps")
    guest.command("verify")
    verified = guest.wait_for("verified")
    expect(verified["ok"] and verified["pages_verified"] == 8192, f"verified: {verified}")
    guest.command("stop")
    final = guest.wait_for("final")
    guest.wait_for_end()

    summary = guest.log.summary()
    expect(summary["ok"], f"log: {summary}")
    expect(guest.log.last("gaps-reset") is not None, "no gaps-reset")
    expect(all(cpu["writes"] > 8192 for cpu in final["cpus"]), "a CPU has hardly written")
    expect(final["pages_verified"] == 8192, "not every page was verified")
    expect(final["sse"]["checks"] > 1000 and final["sse"]["errors"] == 0, "registers")
    expect(final["clock"]["tsc_backwards"] == 0, "TSC ran backwards")
    expect(final["irq"]["disk"]["count"] > 0 and final["irq"]["disk"]["lost"] == 0, "interrupts")
    disk, net = final["disk"], final["net"]
    expect(disk["writes"] > 500 and disk["flushes"] > 10 and disk["inflight"] == 0, f"disk: {disk}")
    expect(disk["flushed"] == disk["newest_acknowledged"], "the final flush does not cover all")
    received = {k: net[k] for k in ("rx", "lost", "doubled", "reordered", "errors", "echoed")}
    expected = {"rx": 50, "lost": 1, "doubled": 1, "reordered": 1, "errors": 0, "echoed": 5}
    expect(received == expected, f"net: {received}, expected {expected}")
    expect(guest.replies == list(range(1000, 1005)), f"replies: {guest.replies}")
    expect(guest.guest_frames == list(range(1, len(guest.guest_frames) + 1)), "guest's frames")
    expect(len(guest.guest_frames) >= 20, "too few frames of the guest")

    result = beacon_disk.scan(str(guest.image), 4096, int(disk["run"], 16))
    beacon_disk.compare(result, final)
    expect(result["violations"] == [], f"image: {result}")
    check_checker(guest.serial_text)
    console = guest.console_log.read_bytes()
    expect(console == guest.serial_text.split(b"\n", 1)[1], "console and serial port differ")


def check_damage_is_seen(guest: Guest) -> None:
    guest.wait_for("report", times=2)
    guest.command("verify")
    verified = guest.wait_for("verified")
    expect(verified["ok"], "errors before the damage")
    # The block written last: going round its sixteen blocks takes beacon four seconds.
    block = (verified["disk"]["newest_acknowledged"] - 1) % 16
    offset = block * 4096 + 1000
    with open(guest.image, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    guest.command("stop")
    final = guest.wait_for("final")
    guest.wait_for_end()
    expect(not final["ok"] and final["disk"]["errors"] == 1, "the damage was not seen")
    error = guest.log.last("error")
    expect(error["kind"] == "block" and error["block"] == block, f"error: {error}")
    expect(guest.log.summary()["violations"] == [], "log")


def check_refusal(guest: Guest) -> None:
    guest.wait_for_end()
    expect([e["event"] for e in guest.log.events] == ["error"], f"events: {guest.log.events}")
    error = guest.log.events[0]
    expect(error["kind"] == "refused" and error["detail"] == "mem_sett=1M", f"error: {error}")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("elf")
    parser.add_argument("--qemu", default="qemu-system-x86_64")
    arguments = parser.parse_args()
    runs = {
        "refusal": (check_refusal, "mem_set=1M mem_sett=1M"),
        "everything": (
            check_everything,
            "out=both mem_set=32M mem_pattern=hot disk=journal disk_qd=8 disk_pattern=random"
            " disk_flush=32 disk_span=8M net=heartbeat net_rate=20",
        ),
        "damage": (
            check_damage_is_seen,
            "mem_set=1M mem_rate=100 disk=journal disk_span=64K disk_rate=4 disk_verify=0 exit=reboot",
        ),
    }
    for name, (check, command_line) in runs.items():
        with tempfile.TemporaryDirectory() as folder:
            guest = Guest(arguments.qemu, arguments.elf, pathlib.Path(folder), command_line)
            try:
                check(guest)
            except Failure as failure:
                print(f"{name}: FAILED: {failure}")
                print(guest.serial_text[-2000:].decode(errors="replace"))
                return 1
            finally:
                guest.close()
            print(f"{name}: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
