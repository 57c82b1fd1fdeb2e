#!/usr/bin/env python3
"""A stock guest under QEMU on the disk of godwit-blk: load that verifies itself, ext4, and a server that is killed.

usage: test_blk_door.py DIRECTORY-OF-PROGRAMS
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from qemu_guest import ROOT, Guest

sys.path.insert(0, str(ROOT / "tests" / "system"))
from adopted import Adopted  # noqa: E402

PROGRAMS = Path(sys.argv.pop(1))
DISK_BYTES = 256 << 20
BOOT_AND_WORK_S = 150

# So slow that whenever the server is killed some writes are under way.
SLOW = "name slow\nwrite_latency_us 20000\n"

EXT4 = """
/tools/mke2fs -q -t ext4 /dev/vda && mkdir /disk && mount -t ext4 /dev/vda /disk || exit 1
for i in 1 2 3; do mkdir /disk/$i && cp -r /lib /disk/$i/ || exit 1; done
rm -r /disk/2
fstrim /disk || exit 1
umount /disk && mount -t ext4 /dev/vda /disk || exit 1
for i in 1 3; do diff -r /lib /disk/$i/lib || exit 1; done
umount /disk && /tools/e2fsck -fn /dev/vda && echo FSCK-IS-CLEAN
"""

VERIFY = """
fio --name=v --filename=/dev/vda --rw=randwrite --bsrange=4k-32k --iodepth=16 --ioengine=libaio \
    --direct=1 --size={size} --fdatasync=64 --verify=crc32c --verify_fatal=1 --numjobs=1 --minimal > /tmp/fio \
    && echo FIO-VERIFIED
"""


class Server:
    """godwit-blk with one image; its log is kept."""

    def __init__(self, folder, *flags):
        self.image, self.socket, self.flags = folder / "disk.raw", folder / "blk.sock", flags
        self.log_path = folder / "log"
        with open(self.image, "wb") as image:
            image.truncate(DISK_BYTES)
        self.process = None

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [PROGRAMS / "godwit-blk", "serve", "--json", "--vhost-user-blk", self.socket, *self.flags, self.image],
                stdout=subprocess.PIPE, stderr=log, env={**os.environ, "GODWIT_RUN_DIR": str(self.image.parent / "run")})
        self.output = self.process.stdout
        self.ready = json.loads(self.output.readline() or "{}")
        assert self.ready.get("ok") and self.ready["bytes"] == DISK_BYTES, f"{self.ready}: {self.log_path.read_text()}"

    def call(self, method, **params):
        """Asks at the control socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
            control.settimeout(60)
            control.connect(self.ready["control"])
            control.send(json.dumps({"id": 1, "method": method, "params": params}).encode())
            return json.loads(control.recv(1 << 17))["result"]

    def exchange(self):
        """Another process serves the guest from now on; gives the report. The first one has ended."""
        report = self.call("exchange")
        assert report["outcome"] == "done", report
        assert self.process.wait(timeout=20) == 0
        self.process = Adopted(report["to"]["pid"])
        return report

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.output.close()

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=20)
        self.output.close()
        return code

    def written_bytes(self):
        text = Path(f"/proc/{self.process.pid}/io").read_text()
        return int(dict(line.split(": ") for line in text.splitlines())["write_bytes"])

    def events(self, name):
        return [record for line in self.log_path.read_text().splitlines()
                if line.startswith("{") and (record := json.loads(line))["event"] == name]

    def device(self):
        return ["-chardev", f"socket,id=blk,path={self.socket},reconnect=1",
                "-device", "vhost-user-blk-pci,chardev=blk"]


class BlkDoor(unittest.TestCase):
    def setUp(self):
        # On a disk, not in memory: the kernel counts what processes write to storage.
        self.folder = tempfile.TemporaryDirectory(dir=ROOT / "build")
        self.addCleanup(self.folder.cleanup)
        self.server = Server(Path(self.folder.name), "--serial", "godwit-serial-1")
        self.server.start()
        self.addCleanup(lambda: self.server.process.poll() is None and self.server.kill())

    def guest(self, script, **options):
        guest = Guest(self.folder.name, script, self.server.device(), **options)
        self.addCleanup(guest.close)
        return guest

    def test_load_and_file_system_with_two_queues(self):
        guest = self.guest("cat /sys/block/vda/serial; echo; ls /sys/block/vda/mq | wc -l\n"
                           + VERIFY.format(size="48m") + EXT4, cpus=2)
        text = guest.wait_for("GODWIT-GUEST-EXIT", BOOT_AND_WORK_S)
        for wanted in ("godwit-serial-1\n2\n", "FIO-VERIFIED", "FSCK-IS-CLEAN"):
            self.assertIn(wanted, text)
        guest.close()
        self.assertEqual(self.server.end(), 0)
        self.assertEqual(self.server.events("front_end_refused"), [])
        self.assertEqual(self.server.events("guest_driver_broken"), [])

    def test_killed_under_load_and_started_again(self):
        """kill -9 while writes are in flight, five times: the guest goes on and reads what it wrote."""
        kills = 5
        state = {"killed": 0}
        profile = Path(self.folder.name) / "slow.profile"
        profile.write_text(SLOW)
        self.server.kill()
        self.server.flags += ("--profile", profile)
        self.server.start()

        def kill_now_and_then():
            if state["killed"] < kills and self.server.written_bytes() > (6 << 20):
                self.server.kill()
                self.server.start()
                state["killed"] += 1

        guest = self.guest(VERIFY.format(size="96m") + EXT4)
        text = guest.wait_for("GODWIT-GUEST-EXIT", BOOT_AND_WORK_S, meanwhile=kill_now_and_then)
        self.assertEqual(state["killed"], kills)
        self.assertIn("FIO-VERIFIED", text)
        self.assertIn("FSCK-IS-CLEAN", text)
        again = sum(record["requests"] for record in self.server.events("requests_taken_up_again"))
        self.assertGreater(again, 0, "no request was in flight at any kill: the test has shown nothing")
        guest.close()
        self.assertEqual(self.server.end(), 0)

    def test_moved_by_each_scheme_and_back_under_load(self):
        """Twelve moves while fio verifies and ext4 is filled; the guest notices nothing."""
        folder = Path(self.folder.name)
        places = (folder / "there.raw", self.server.image)
        left = [(scheme, place) for scheme in ("dbt", "mirror", "lr", "slr", "aio", "tiered") for place in places]
        reports = []

        def move_on():
            disk = self.server.call("disks")["disks"][0]
            if disk["move"] is not None or self.server.written_bytes() < (2 << 20):
                return
            if disk["last_move"] is not None and disk["last_move"]["id"] not in [known["id"] for known in reports]:
                reports.append(disk["last_move"])
                Path(disk["last_move"]["source"]).unlink()
            if left:
                scheme, place = left.pop(0)
                self.server.call("disk_move", disk="disk0", destination=str(place), scheme=scheme)

        guest = self.guest(VERIFY.format(size="48m") + EXT4)
        text = guest.wait_for("GODWIT-GUEST-EXIT", BOOT_AND_WORK_S, meanwhile=move_on)
        self.assertEqual([report["outcome"] for report in reports], ["moved"] * 12)
        self.assertGreater(sum(report["written_bytes"][side]["guest"] for report in reports
                               for side in ("source", "destination")), 1 << 20, "the guest wrote during no move")
        for wanted in ("FIO-VERIFIED", "FSCK-IS-CLEAN"):
            self.assertIn(wanted, text)
        for report in reports:
            print(f"{report['scheme']}: {report['duration_us'] / 1e6:.2f} s, pause {report['pause_us'] / 1e3:.1f} ms")
        guest.close()
        self.assertEqual(self.server.end(), 0)
        self.assertEqual(self.server.events("guest_driver_broken"), [])

    def failing(self, point):
        """A godwit-blk that is killed at a point of an exchange it takes part in."""
        program = Path(self.folder.name) / f"killed-at-{point}"
        program.write_text(f"#!/bin/sh\nGODWIT_FAULT=doors.exchange.successor.{point}:kill "
                           f"exec {PROGRAMS / 'godwit-blk'} \"$@\"\n")
        program.chmod(0o755)
        return str(program.resolve())

    def test_exchanged_under_load(self):
        """Ten processes after each other while fio verifies and ext4 is filled, and each time one first that dies when
        it has everything: the guest keeps its connection. Then one dies that owns the disk, and the next server goes
        on as after any kill."""
        exchanges, reports, failed = 10, [], []

        def exchange_now_and_then():
            if self.server.written_bytes() < (1 << 20) or len(failed) > exchanges:
                return
            if len(reports) == exchanges:
                self.assertEqual(len(self.server.events("front_end_came")), 1, "QEMU has connected anew")
                self.assertEqual(self.server.events("requests_taken_up_again"), [])
                failed.append(self.server.call("exchange", program=self.failing("claimed")))
                self.assertEqual(self.server.process.wait(timeout=20), 1)
                self.server.output.close()
                self.server.start()
                return
            failed.append(self.server.call("exchange", program=self.failing("claim")))
            reports.append(self.server.exchange())

        # Enough to do that a quick host's guest is not through before the last of them.
        guest = self.guest(VERIFY.format(size="224m") + EXT4, cpus=2)
        text = guest.wait_for("GODWIT-GUEST-EXIT", BOOT_AND_WORK_S, meanwhile=exchange_now_and_then)
        self.assertEqual(len(reports), exchanges)
        for wanted in ("FIO-VERIFIED", "FSCK-IS-CLEAN"):
            self.assertIn(wanted, text)
        self.assertEqual([report["front_ends"] for report in reports + failed], [1] * (2 * exchanges + 1))
        self.assertEqual([report["outcome"] for report in failed],
                         ["rolled_back"] * exchanges + ["failed_after_commit"])
        self.assertEqual(len(self.server.events("front_end_came")), 2)
        for event in ("front_end_refused", "guest_driver_broken"):
            self.assertEqual(self.server.events(event), [])
        for what, some in (("exchanged", reports), ("rolled back", failed[:-1])):
            pauses = sorted(report["pause_us"] for report in some)
            print(f"pause, {what}: median {pauses[len(pauses) // 2] / 1e3:.2f} ms, longest {pauses[-1] / 1e3:.2f} ms")
        guest.close()
        self.assertEqual(self.server.end(), 0)

    def test_ended_cleanly_and_started_again(self):
        """SIGTERM leaves nothing in flight, and the guest waits for the next server."""
        state = {"ended": 0}

        def end_once():
            if state["ended"] == 0 and self.server.written_bytes() > (6 << 20):
                self.assertEqual(self.server.end(), 0)
                self.server.start()
                state["ended"] = 1

        guest = self.guest(VERIFY.format(size="32m"))
        text = guest.wait_for("GODWIT-GUEST-EXIT", BOOT_AND_WORK_S, meanwhile=end_once)
        self.assertEqual(state["ended"], 1)
        self.assertIn("FIO-VERIFIED", text)
        self.assertEqual(self.server.events("requests_taken_up_again"), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
