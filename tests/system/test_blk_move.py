#!/usr/bin/env python3
"""Disks that godwit-blk exports move while NBD clients use them, by every scheme, and the server dies on the way."""

import contextlib
import json
import os
import random
import signal
import subprocess
import tempfile
import threading
import unittest
from pathlib import Path

from blk_server import BIN, LIMIT_S, Refused, Server, Writer

DISK_BYTES = 64 << 20
SCHEMES = ("dbt", "mirror", "lr", "slr", "aio", "tiered")
WRITTEN_BLOCKS = 4096


class BlkMove(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        self.image, self.there = self.folder / "disk.raw", self.folder / "there.raw"
        self.socket = self.folder / "nbd.sock"
        with open(self.image, "wb") as image:
            image.truncate(DISK_BYTES)

    def serve(self, *flags, image=None, **options):
        server = Server(self.folder, image or self.image, "--cached", "--nbd", self.socket, *flags, **options)
        self.addCleanup(server.kill)
        return server

    def wait_for_move(self, server):
        """The report of the move, when it is over."""
        end = threading.Event()
        for _ in range(LIMIT_S * 50):
            disk = server.disk()
            if disk["move"] is None:
                return disk["last_move"]
            end.wait(0.02)
        self.fail(f"the move does not end: {server.disk()}")

    def fill(self):
        """Data that nobody writes to, in the upper half, with a hole."""
        chance = random.Random(7)
        with open(self.image, "r+b") as image:
            image.seek(DISK_BYTES // 2)
            for _ in range(16):
                image.write(chance.randbytes(1 << 20))
        return self.upper_half(self.image)

    @staticmethod
    def upper_half(path):
        with open(path, "rb") as image:
            image.seek(DISK_BYTES // 2)
            return image.read()

    def test_each_scheme_there_and_back_while_fio_verifies(self):
        before = self.fill()
        server = self.serve()
        job = self.folder / "job.fio"
        job.write_text(f"[verify]\nioengine=nbd\nuri={server.ready['nbd']}\nrw=randwrite\nbsrange=4k-32k\niodepth=16\n"
                       "size=16m\nverify_state_save=0\nfsync=64\nverify=crc32c\nverify_fatal=1\nverify_backlog=64\n")
        moved, runs, failures = threading.Event(), [], []

        def load():
            while not (moved.is_set() or failures):
                done = subprocess.run(["fio", "--minimal", job], capture_output=True, text=True)
                (runs if done.returncode == 0 else failures).append(done.stdout + done.stderr)

        thread = threading.Thread(target=load)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(moved.set)
        for scheme in SCHEMES:
            for source, destination in ((self.image, self.there), (self.there, self.image)):
                with self.subTest(scheme=scheme, destination=destination.name):
                    code, report, complaint = server.godwit("disk", "move", "disk", destination, "--scheme", scheme)
                    self.assertEqual(code, 0, complaint)
                    self.assertEqual((report["outcome"], report["complete"]), ("moved", "destination"))
                    self.assertEqual(server.disk()["path"], str(destination))
                    self.assertEqual(json.loads((self.folder / "disk.raw.place").read_text())["image"],
                                     str(destination))
                    source.unlink()
        moved.set()
        thread.join()
        self.assertEqual(failures, [])
        self.assertGreater(len(runs), 0)
        metrics = server.call("disks")["metrics"]
        self.assertGreater(metrics["changed_bytes"], 16 << 20)
        for kind in ("reads", "changes", "flushes"):
            times = metrics["times"][kind]
            self.assertGreater(times["timed"], 0)
            self.assertEqual(sum(times["below_us"]), times["timed"])
        code, listed, _ = server.godwit("disk", "list", "disk")
        self.assertEqual((code, listed["disks"][0]["path"]), (0, str(self.image)))
        self.assertEqual(server.end(), 0)
        self.assertEqual(self.upper_half(self.image), before)

    def test_killed_at_the_switch_the_next_server_opens_the_complete_image(self):
        for point, lies_at in (("note", "disk.raw"), ("noted", "there.raw")):
            for scheme in SCHEMES:
                with self.subTest(point=point, scheme=scheme):
                    server = self.serve(environment={"GODWIT_FAULT": f"block.disk_move.{point}:kill"})
                    writer = Writer(self.socket, WRITTEN_BLOCKS)
                    writer.start()
                    while writer.acknowledged < 200:
                        self.assertTrue(writer.is_alive(), writer.error)
                    with contextlib.suppress(ConnectionError):  # It may die before it has answered.
                        server.call("disk_move", disk="disk0", destination=str(self.there), scheme=scheme)
                    self.assertEqual(server.process.wait(LIMIT_S), -signal.SIGKILL)
                    writer.join(LIMIT_S)
                    writer.stop()
                    self.assertIsInstance(writer.error, OSError)
                    again = self.serve()
                    self.assertEqual(Path(again.ready["image"]).name, lies_at)
                    self.assertEqual(writer.violations(self.socket), [])
                    again.kill()
                    for name in ("there.raw", "disk.raw.place"):
                        (self.folder / name).unlink(missing_ok=True)
                    with open(self.image, "wb") as image:
                        image.truncate(DISK_BYTES)

    def test_killed_in_the_middle_the_source_is_complete(self):
        for scheme in SCHEMES:
            with self.subTest(scheme=scheme):
                server = self.serve()
                writer = Writer(self.socket, WRITTEN_BLOCKS)
                writer.start()
                server.call("disk_move", disk="disk0", destination=str(self.there), scheme=scheme,
                            limit_bytes_per_second=32 << 20)
                while server.disk()["move"]["cursor_bytes"] < DISK_BYTES // 3:
                    self.assertTrue(writer.is_alive(), writer.error)
                server.kill()
                writer.stop()
                again = self.serve()
                self.assertEqual(again.ready["image"], str(self.image))
                self.assertEqual(writer.violations(self.socket), [])
                again.kill()
                self.there.unlink()
                with open(self.image, "wb") as image:
                    image.truncate(DISK_BYTES)

    def test_cancelled_ended_and_refused_the_disk_stays(self):
        server = self.serve()
        writer = Writer(self.socket, WRITTEN_BLOCKS)
        writer.start()
        slowly = {"disk": "disk0", "destination": str(self.there), "limit_bytes_per_second": 8 << 20}
        for scheme in SCHEMES:
            with self.subTest(scheme=scheme):
                server.call("disk_move", scheme=scheme, **slowly)
                with self.assertRaises(Refused) as refused:
                    server.call("disk_move", scheme=scheme, **{**slowly, "destination": str(self.folder / "x.raw")})
                self.assertEqual(refused.exception.code, "conflict")
                code, report, complaint = server.godwit("disk", "cancel", "disk")
                self.assertEqual((code, report["outcome"]), (0, "cancelled"), complaint)
                self.assertFalse(self.there.exists())
        for wrong in ({"destination": "relative.raw"}, {"scheme": "magic"}, {"destination": str(self.image)},
                      {"disk": "disk1"}, {"scheme": "mirror", "unsafe": True}, {"gamma": 3}):
            with self.subTest(wrong=wrong), self.assertRaises(Refused):
                server.call("disk_move", **{**slowly, "scheme": "slr", **wrong})
            self.assertFalse(self.there.exists())
        code, _, complaint = server.godwit("disk", "move", "nobody", self.there)
        self.assertEqual(code, 1, complaint)
        # A signal brings the disk back first, and nobody is turned away meanwhile.
        server.call("disk_move", scheme="lr", unsafe=True, **slowly)
        while server.disk()["move"]["cursor_bytes"] < DISK_BYTES // 8:
            self.assertTrue(writer.is_alive(), writer.error)
        writer.stopping.set()
        writer.join(LIMIT_S)
        self.assertIsNone(writer.error)
        self.assertEqual(server.end(), 0)
        self.assertFalse(self.there.exists())
        again = self.serve()
        self.assertEqual(again.ready["image"], str(self.image))
        self.assertEqual(writer.violations(self.socket), [])

    def test_a_destination_on_a_full_file_system_leaves_the_disk_where_it_was(self):
        """The file is made, as large as the disk and all holes; then there is no room for what is copied."""
        before = self.fill()
        small = self.folder / "small"
        small.mkdir()
        server = self.serve(wrapper=("unshare", "-rm", "sh", "-c",
                                     f'mount -t tmpfs -o size=6m none {small} && exec "$@"', "sh"))
        writer = Writer(self.socket, WRITTEN_BLOCKS)
        writer.start()
        for scheme in SCHEMES:
            with self.subTest(scheme=scheme):
                server.call("disk_move", disk="disk0", destination=str(small / "there.raw"), scheme=scheme)
                report = self.wait_for_move(server)
                self.assertEqual((report["outcome"], report["complete"]), ("failed", "source"), report)
                self.assertIn("No space left", report["reason"])
                self.assertTrue(writer.is_alive(), writer.error)
        writer.stop()
        self.assertIsNone(writer.error)
        self.assertEqual(writer.violations(self.socket), [])
        self.assertEqual(server.disk()["path"], str(self.image))
        self.assertFalse((self.folder / "disk.raw.place").exists())
        self.assertEqual(server.end(), 0)
        self.assertEqual(self.upper_half(self.image), before)

    def test_what_the_note_says_is_opened_or_nothing(self):
        server = self.serve()
        code, _, complaint = server.godwit("disk", "move", "disk", self.there, "--scheme", "mirror")
        self.assertEqual(code, 0, complaint)
        self.assertEqual(server.end(), 0)
        self.there.rename(self.folder / "elsewhere.raw")
        words = [BIN / "godwit-blk", "serve", "--nbd", self.socket, self.image]
        environment = {**os.environ, "GODWIT_RUN_DIR": str(self.folder / "run")}
        for spoil in (lambda: None, lambda: (self.folder / "disk.raw.place").write_text("{}")):
            spoil()
            done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, env=environment)
            self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
        # Two exports of one name do not take each other's requests.
        (self.folder / "disk.raw.place").unlink()
        first = self.serve()
        (self.folder / "other").mkdir()
        self.there = self.folder / "other" / "disk.raw"
        (self.folder / "elsewhere.raw").rename(self.there)
        done = subprocess.run([*words[:2], "--nbd", self.folder / "second.sock", self.there], capture_output=True,
                              text=True, timeout=LIMIT_S, env=environment)
        self.assertEqual(done.returncode, 1)
        self.assertIn("--name", done.stderr)
        self.assertEqual(first.call("status")["image"], str(self.image))


if __name__ == "__main__":
    unittest.main(verbosity=2)
